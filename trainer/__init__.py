"""Training loop, checkpoints and evaluation. Knows model and data."""
