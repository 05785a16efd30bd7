"""Golden samples: real inputs whose answers are far enough from a tie that every machine must reproduce them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Golden
from models.coding import encode
from models.engines.reference import ReferenceEngine
from models.spec import Spec
from models.spec.network import Network
from models.spec.parameters import PER_NEURON
from training.data.datasets import Split

NUDGE = 2.0**-18  # about ten times what a float32 sum's order can do to it
CANDIDATES = 64  # samples that are tried at most
AT_A_TIME = 16
THRESHOLDS = ("threshold", "adapt_gain")  # what a neuron's threshold is proportional to


def choose_golden(network: Network, split: Split, wanted: int = 8) -> Golden:
    """Return the first samples of a split whose counts stay as they are when every threshold moves a little.

    Where fewer than `wanted` of the first CANDIDATES stay, or the last layer has no threshold to move, the first of the
    others fill up.
    """
    engines = [
        ReferenceEngine(moved) for moved in (network, *(_with_thresholds(network, 1 + n) for n in (-NUDGE, NUDGE)))
    ]
    steady: list[tuple[NDArray[Any], ...]] = []
    others: list[tuple[NDArray[Any], ...]] = []
    for start in range(0, min(CANDIDATES, len(split)), AT_A_TIME):
        inputs = encode(split.samples[start : start + AT_A_TIME], network.spec, network.spec.time_steps)
        expected, *moved = (engine.run(inputs)[0] for engine in engines)
        stays = np.all([(run.spike_counts == expected.spike_counts).all(axis=1) for run in moved], axis=0)
        for index in range(inputs.batch):
            sample = inputs.steps[:, index], expected.spike_counts[index], expected.readout[index]
            (steady if stays[index] else others).append(sample)
        if len(steady) >= wanted:
            break
    steps, spike_counts, readout = zip(*(steady + others)[:wanted], strict=True)
    return Golden(
        inputs=type(inputs)(np.stack(steps, axis=1), inputs.time_steps),
        spike_counts=np.stack(spike_counts),
        readout=np.stack(readout),
    )


def _with_thresholds(network: Network, factor: float) -> Network:
    spec: dict[str, Any] = network.spec.model_dump(mode="json")
    for node in spec["nodes"]:
        for name in THRESHOLDS:
            if node.get(name, PER_NEURON) != PER_NEURON:
                node[name] *= factor
    scale = np.float32(factor)
    tensors = {
        name: tensor * scale if name.rpartition(".")[2] in THRESHOLDS else tensor
        for name, tensor in network.tensors.items()
    }
    return Network(Spec.read(spec), tensors)
