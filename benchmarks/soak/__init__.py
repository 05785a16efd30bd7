"""Long runs against a service of its own on the loopback, each with a target: `python -m benchmarks.soak`."""
