"""The `torch` engine, and the modules that it shares with training."""
