"""Inference: the pipeline that every protocol shares, from a body to an answer."""
