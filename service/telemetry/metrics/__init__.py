"""Prometheus metrics. Label values come from the models and routes, never from what a client sends."""
