"""What more processes give, and what stands between a client and them costs: `python -m benchmarks.scale`."""
