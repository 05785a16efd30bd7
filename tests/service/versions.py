"""Versions of a toy model that answer differently, and one that cannot be loaded."""

from pathlib import Path
from typing import Any

import numpy as np

from spikeserve.models.bundle import File
from spikeserve.models.spec.network import Network
from tests.networks import toy


def doubled() -> Network:
    """The toy with twice its weights: at 0.5, it spikes at every step where the toy spikes at none.

    0.5 into a decay of 0.5 charges 0.5, 0.75, 0.875, below the threshold of 1; twice that is 1 at every step.
    """
    return Network(toy().spec, {"fc.weight": toy().tensors["fc.weight"] * np.float32(2)})


HALF: dict[str, Any] = {"inputs": [[0.5, 0]]}


COUNTS = {1: [0, 0], 0: [3, 0]}  # by whether the version is odd: odd ones are the toy, even ones the doubled


def damage(repository: Path, version: int, name: str = "toy") -> None:
    weights = repository / name / str(version) / File.WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"?")
