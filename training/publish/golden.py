"""Golden samples: real inputs whose answers are far enough from a tie that every machine must reproduce them."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.bundle import Golden
from models.coding import encode
from models.engines.reference import ReferenceEngine
from models.spec import Spec
from models.spec.network import Network
from models.spec.parameters import PER_NEURON
from training.data.datasets import Split

NUDGE = 2.0**-18  # about ten times what a float32 sum's order can do to it
CANDIDATES = 64


def choose_golden(network: Network, split: Split, wanted: int = 8) -> Golden:
    """Return the first samples of a split whose counts stay as they are when every threshold moves a little.

    Where fewer than `wanted` stay, or the last layer has no threshold to move, the first samples fill up.
    """
    inputs = encode(split.samples[:CANDIDATES], network.spec, network.spec.time_steps)
    expected, _ = ReferenceEngine(network).run(inputs)
    steady = np.ones(inputs.batch, bool)
    for factor in (1 - NUDGE, 1 + NUDGE):
        moved, _ = ReferenceEngine(_with_thresholds(network, factor)).run(inputs)
        steady &= (moved.spike_counts == expected.spike_counts).all(axis=1)
    chosen = np.sort(np.argsort(~steady, kind="stable")[:wanted])
    steps = np.ascontiguousarray(inputs.steps[:, chosen])
    return Golden(
        inputs=type(inputs)(steps, inputs.time_steps),
        spike_counts=expected.spike_counts[chosen],
        readout=expected.readout[chosen],
    )


def _with_thresholds(network: Network, factor: float) -> Network:
    spec: dict[str, Any] = network.spec.model_dump(mode="json")
    for node in spec["nodes"]:
        if node.get("threshold", PER_NEURON) != PER_NEURON:
            node["threshold"] *= factor
    scale = np.float32(factor)
    tensors = {
        name: tensor * scale if name.endswith(".threshold") else tensor for name, tensor in network.tensors.items()
    }
    return Network(Spec.read(spec), tensors)
