"""The native protocol: requests of samples, and their answers."""
