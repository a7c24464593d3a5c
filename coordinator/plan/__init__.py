"""What to measure: the plan, its cells, and replays of recorded datasets."""
