"""A training step of ours beside other libraries': forward, loss, backward and optimiser, from the same weights.

A package of contestants as `benchmarks.workers` asks for one.
"""

from benchmarks.contestants.base import TrainingJob as Job
from benchmarks.training.choose import prepare, result

__all__ = ["Job", "prepare", "result"]
