"""Training: surrogate gradients, losses, the training loop, checkpoints and the run's folder."""
