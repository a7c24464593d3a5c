"""Model versions in the MLflow Model Registry. `registry.registry.Registry` is the way in."""
