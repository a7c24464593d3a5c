"""What runs on a node: measures GEMMs, keeps the node's model, answers questions."""
