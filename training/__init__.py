"""Offline: data sets, losses, the training loop, evaluation and export. Never part of a serving image."""
