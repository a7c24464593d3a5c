"""Who measures: the Ray cluster, leases, trainings, and one run from start to end."""
