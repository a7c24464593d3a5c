"""Model versions over the MLflow Model Registry. The way in is `registry.registry.Registry`; nothing heavy is imported before it is used."""
