"""Signatures of models and tuned tables: made beside the registry, checked on the nodes."""
