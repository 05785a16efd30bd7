"""The `torch` engine, and the PyTorch modules that it shares with training."""
