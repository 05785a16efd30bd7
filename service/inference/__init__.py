"""Inference: what both protocols share, from a request's body to its answer."""
