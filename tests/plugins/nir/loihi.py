"""Files as lava-dl writes them, and Loihi's arithmetic in whole numbers, from the sources of Lava.

The neurons are `PyLifModelBitAcc` and `PySigmaDeltaModelFixed` of lava's `src/lava/proc`, the layers those of lava-dl's
`src/lava/lib/dl/netx/hdf5.py`. All are written here again, in the order of their equations.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

Whole: TypeAlias = NDArray[np.int64]
Layer: TypeAlias = dict[str, Any]

LIMIT = 2**23
SDNN = {"type": "SDNN", "vThMant": 6, "activation": "relu"}
CUBA = {"type": "CUBA", "iDecay": 1024, "vDecay": 128, "vThMant": 80, "refDelay": 1, "gradedSpike": False}


def write(path: Path, *layers: Layer, time_steps: int | None = None) -> Path:
    """Write layers as a file, each data set as lava-dl types it."""
    with h5py.File(path, "w") as file:
        for number, layer in enumerate(layers):
            _write(file.create_group(f"layer/{number}"), layer)
        if time_steps is not None:
            file["simulation/tSample"] = time_steps
    return path


def _write(group: h5py.Group, fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            _write(group.create_group(key), value)
        elif isinstance(value, str):
            group.create_dataset(key, (1,), "S10", [value.encode()])
        else:
            group[key] = value


def dense(weight: Any, **fields: Any) -> Layer:
    weight = np.asarray(weight, np.float32)
    return {"type": "dense", "shape": np.array([len(weight)]), "weight": weight, "neuron": CUBA} | fields


def conv(weight: Any, **fields: Any) -> Layer:
    sizes = {"stride": np.array([1, 1]), "padding": np.array([0, 0]), "dilation": np.array([1, 1]), "groups": 1}
    return {"type": "conv", "weight": np.asarray(weight, np.float32), "neuron": CUBA} | sizes | fields


def simulated(layers: list[Layer], steps: Whole, *, latency: bool = False) -> list[tuple[Whole, Whole]]:
    """Return the spikes and membranes of each layer of neurons, or messages and sums, (steps, *shape).

    The input of neurons is their bias at each step, of sigma-delta neurons their activation.
    """
    found: list[tuple[Whole, Whole]] = []
    for layer in layers:
        neuron = layer.get("neuron", {"type": "CUBA", "iDecay": 0, "vDecay": 4096, "vThMant": 2**17})
        bias = np.asarray(layer.get("bias", 0)).astype(np.int64)
        if layer["type"] == "input":
            currents, bias = np.zeros_like(steps), steps
        else:
            currents, after = _currents(layer, steps)
            currents = _delayed(currents, after + latency)
            bias = bias.reshape(-1, 1, 1) if layer["type"] == "conv" else bias
        if neuron["type"] == "SDNN":
            found.append(_messages(neuron, currents, bias, layer["type"] == "input"))
        else:
            found.append(_spikes(neuron, currents, bias, layer.get("weight_rec")))
        steps = found[-1][0]
    return found


def _messages(neuron: Mapping[str, Any], currents: Whole, bias: Whole, encodes: bool) -> tuple[Whole, Whole]:
    sums = np.cumsum(currents, axis=0)
    if "sigma_output" in neuron:
        return sums, sums
    activations = bias << 12 if encodes else np.maximum(sums + (bias << 12), 0)
    before = residue = np.zeros_like(sums[0])
    messages = []
    for activation in activations:
        delta = activation - before + residue
        sent = np.where(np.abs(delta) >= neuron["vThMant"] << 12, delta, 0)
        residue, before = delta - sent, activation
        messages.append(sent >> 6)
    return np.array(messages), sums


def _spikes(neuron: Mapping[str, Any], currents: Whole, bias: Any, feedback: Any) -> tuple[Whole, Whole]:
    u = v = s = np.zeros_like(currents[0])
    spikes, membranes = [], []
    for step, current in enumerate(currents):
        if feedback is not None:
            current = current + np.asarray(feedback).astype(np.int64) @ s
        u = _decayed(u, neuron["iDecay"]) + (current << 6)
        u = np.where(u > LIMIT, u - 2 * LIMIT, np.where(u <= -LIMIT, u + 2 * LIMIT, u))
        drive = bias[step] if np.shape(bias) == np.shape(currents) else bias
        v = np.clip(_decayed(v, neuron["vDecay"]) + u + (drive << 6), -LIMIT + 1, LIMIT - 1)
        s = (v > neuron["vThMant"] << 6).astype(np.int64)
        v = np.where(s > 0, 0, v)
        spikes.append(s)
        membranes.append(v)
    return np.array(spikes), np.array(membranes)


def _decayed(state: Whole, decay: int) -> Whole:
    return np.sign(state) * ((np.abs(state) * (4096 - decay)) >> 12)


def _currents(layer: Layer, steps: Whole) -> tuple[Whole, Any]:
    """Return the weighted sums before any delay of an output, and that delay."""
    weight = layer["weight"].astype(np.int64)
    weight = weight.reshape(np.prod(layer["shape"]), -1) if weight.ndim == 1 else weight
    if layer["type"] == "conv":
        return _convolved(layer, weight, steps), 0
    delay = np.minimum(np.floor(np.asarray(layer.get("delay", 0))), 62).astype(np.int64).ravel()
    of_outputs = delay.size in (1, len(weight))
    steps = steps.reshape(len(steps), -1)
    return (steps if of_outputs else _delayed(steps, delay)) @ weight.T, delay if of_outputs else 0


def _convolved(layer: Layer, weight: Whole, steps: Whole) -> Whole:
    import torch

    return np.asarray(
        torch.conv2d(
            torch.tensor(steps, dtype=torch.float64),  # exact up to 53 bits
            torch.tensor(weight, dtype=torch.float64),
            stride=layer["stride"].tolist(),
            padding=layer["padding"].tolist(),
            dilation=layer["dilation"].tolist(),
            groups=layer["groups"],
        )
    ).astype(np.int64)


def _delayed(steps: Whole, delay: Any) -> Whole:
    """Delay values (steps, *shape), all or each of a list by so many steps."""
    delays = np.broadcast_to(delay, steps.shape[1:]).reshape(-1)
    flat, result = steps.reshape(len(steps), -1), np.zeros((len(steps), delays.size), np.int64)
    for unit, count in enumerate(delays):
        result[count:, unit] = flat[: max(0, len(steps) - count), unit]
    return result.reshape(steps.shape)
