"""Spiking layers for your own PyTorch code: build, train in your own loop, publish.

See docs/training.md, "In your own code".
"""

from __future__ import annotations

from spikeserve.training.fit.losses import membrane_loss, spike_loss
from spikeserve.training.fit.modules import ALIF, IF, LI, LIF, CubaALIF, CubaLI, CubaLIF, Delay, PerStep
from spikeserve.training.importers.frameworks.own import publish

__all__ = [
    "ALIF",
    "IF",
    "LI",
    "LIF",
    "CubaALIF",
    "CubaLI",
    "CubaLIF",
    "Delay",
    "PerStep",
    "membrane_loss",
    "publish",
    "spike_loss",
]
