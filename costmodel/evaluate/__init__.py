"""How good a model is: metrics, baselines, groups, cross-validation, ranking, noise."""
