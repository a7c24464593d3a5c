"""Fleets of replayed agents, for benchmarks/fleet_scale.py and benchmarks/fleet_retrain.py."""
