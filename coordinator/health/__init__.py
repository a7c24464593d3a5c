"""Which boards are not well: from their samples, their sisters and the cost model."""
