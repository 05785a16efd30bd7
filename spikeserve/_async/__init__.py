"""The client, written once: `_sync` is made of it, without `async` and `await`, by `python -m tests.unasync`."""
