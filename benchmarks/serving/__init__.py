"""How fast the service answers over HTTP, beside others that serve the same weights: `python -m benchmarks.serving`."""
