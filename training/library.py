"""Spiking layers for your own PyTorch code, and neurons of your own: build, train in your own loop, publish.

See docs/training.md, "In your own code", and docs/tutorials/neuron.md.
"""

from __future__ import annotations

from spikeserve.models.spec.expressions import (
    equal,
    exp,
    fire,
    fire_above,
    fire_multiple,
    floor,
    hold,
    maximum,
    minimum,
    select,
    sqrt,
    trunc,
)
from spikeserve.training.fit.losses import membrane_loss, spike_loss
from spikeserve.training.fit.modules import (
    ALIF,
    IF,
    LI,
    LIF,
    AdLIF,
    CubaALIF,
    CubaLI,
    CubaLIF,
    Delay,
    Integrator,
    Neuron,
    PerStep,
)
from spikeserve.training.publish.publish import publish

__all__ = [
    "ALIF", "IF", "LI", "LIF", "AdLIF", "CubaALIF", "CubaLI", "CubaLIF", "Delay", "Integrator", "Neuron", "PerStep",
    "equal", "exp", "fire", "fire_above", "fire_multiple", "floor", "hold", "maximum", "membrane_loss", "minimum",
    "publish", "select", "spike_loss", "sqrt", "trunc",
]  # fmt: skip
