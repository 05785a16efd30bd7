"""Fitting a network: surrogate gradients, losses, the loop, checkpoints and the run's folder."""
