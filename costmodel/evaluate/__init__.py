"""How good a model is: metrics, baselines, cross-validation, generalisation, ranking, repeatability."""
