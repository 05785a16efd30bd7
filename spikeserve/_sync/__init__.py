"""The client that blocks, which `python -m tests.unasync` makes of `_async`."""
