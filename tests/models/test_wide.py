"""Layers wide enough for every way through the kernels: all engines give the reference's bits, on any weights."""

import math
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import create
from spikeserve.models.engines.event.connections import FLOATS, INTEGERS, NARROW, SPARSE
from spikeserve.models.engines.event.cores import Cores
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.sums import Summation, sums_of
from tests.networks import network_of, node_of, task
from tests.same import assert_same_runs, assert_same_state

ONE, TWO = Cores(1), Cores(2, least_work=0.0)  # two split every layer that has two parts
STEPS = 6


def weights(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Draw weights of a kind: so many bits with an exponent for each output, or any floats."""
    if kind == "floats":
        return rng.normal(0, 0.07, shape).astype(np.float32)
    most = 2 ** (int(kind.removesuffix(" bits")) - 1) - 1
    whole = rng.integers(-most, most + 1, shape)
    whole[: len(shape)] = most  # of the first outputs all are the largest
    exponents = rng.integers(-3, 1, (shape[0], *[1] * (len(shape) - 1))) - math.ceil(math.log2(most)) - 2
    return np.ldexp(whole.astype(np.float32), exponents).astype(np.float32)


def filled(nodes: list[dict[str, Any]], kind: str, share: float = 1.0, **around: Any) -> Network:
    """Return a network whose weights are of a kind, so large a share of them not 0, and whose biases any floats."""
    rng, shapes = np.random.default_rng(3), Spec.read({"nodes": nodes} | around).tensor_shapes
    drawn = {name: weights(kind, shape, rng) for name, shape in shapes.items() if name.endswith("weight")}
    drawn |= {name: values * (rng.random(values.shape) < share) for name, values in drawn.items()}
    return network_of(nodes, {n: drawn.get(n, rng.normal(0, 0.1, shape)) for n, shape in shapes.items()}, **around)


def layer(
    kind: str = "9 bits",
    inputs: int = 784,
    neurons: int = 150,
    share: float = 1.0,
    taps: int = 0,
    bias: bool = True,
    steps: int = STEPS,
    fields: dict[str, Any] | None = None,
    **lif: Any,
) -> Network:
    """Return a layer of neurons behind a Linear, perhaps of so many taps, and ten that add up; `fields` of the spec."""
    size = {"in_features": inputs * max(1, taps), "out_features": neurons, "bias": bias}
    nodes: list[dict[str, Any]] = [
        *([{"type": "Delay", "name": "seen", "taps": [*range(taps)]}] if taps else []),
        {"type": "Linear", "name": "fc"} | size,
        {"type": "LIF", "name": "hidden", "decay": 0.77, "threshold": 0.9} | lif,
        {"type": "Linear", "name": "last", "in_features": neurons, "out_features": 10, "bias": False},
        {"type": "LI", "name": "out", "decay": 0.9},
    ]
    around = task(inputs, steps, 10, **{"coding": "spikes", "readout": "max_membrane"} | (fields or {}))
    return filled(nodes, kind, share, **around)


def image(kind: str, shape: tuple[int, ...], *first: dict[str, Any], side: int = 1, **fields: Any) -> Network:
    """Return a convolution of images, perhaps behind other nodes, and neurons and perhaps a maximum pool behind it."""
    arriving = shape
    for node in first:
        arriving = node_of(node).output_shape(arriving)
    conv = {"type": "Conv2d", "name": "conv", "in_channels": arriving[0], "kernel_size": 3} | fields
    pools: list[dict[str, Any]] = [{"type": "MaxPool2d", "name": "maxima", "kernel_size": side}] if side > 1 else []
    size = math.prod(reduce(lambda before, node: node_of(node).output_shape(before), [conv, *pools], arriving))
    nodes = [
        *(*first, conv, {"type": "LIF", "name": "hidden", "decay": 0.75, "threshold": 0.5}, *pools),
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc", "in_features": size, "out_features": 3},
        {"type": "IF", "name": "out", "threshold": 4.0},
    ]
    return filled(nodes, kind, **task(shape, STEPS, 3, "spikes"))


def raster(activity: float, batch: int, network: Network) -> DenseInputs:
    random = np.random.default_rng(batch).random((network.spec.time_steps, batch, *network.spec.input.shape))
    return DenseInputs((random < activity).astype(np.float32), network.spec.time_steps)


HEARS: list[Any] = [None, {"bias": True}, {"bias": True, "bias_at_start": False, "joins": "charge"}]
DELAYS: dict[str, Any] = {"inputs": 60, "neurons": 90, "taps": 5, "share": 0.05}
RANGE: dict[str, Any] = {"low": -4, "high": 4}
BYTES_OF = {2**15: NARROW, 2**15 + 1: FLOATS}
# A layer, how its sums are computed, and by which code of the event engine.
LAYERS: dict[str, tuple[Network, Summation, int]] = {
    # 1500 inputs are several flushes of 256 rows, and 330 neurons a panel whose last register is short.
    **{
        f"{kind}, {number}, {bias}": (
            layer(kind, 1500, 330, bias=bias, recurrent=hears),
            *((Summation.INTEGER, NARROW) if bias else (Summation.FLOAT32, NARROW)),
        )
        for kind in ("8 bits", "7 bits", "6 bits", "5 bits", "4 bits")
        for (number, hears), bias in product(enumerate(HEARS[:2]), (False, True))
    },
    # Of 2**15 inputs at 4 spikes and 127 each, float32 holds every sum; of more it might not.
    **{f"8 bits, {n}": (layer("8 bits", n, 3, bias=False), Summation.FLOAT32, by) for n, by in BYTES_OF.items()},
    **{
        f"floats, {number}": (layer("floats", 3000, 200, recurrent=hears), Summation.INTEGER, INTEGERS)
        for number, hears in enumerate(HEARS)
    },
    **{
        f"9 bits, {neurons}": (layer(neurons=neurons, bias=False), Summation.FLOAT32, FLOATS)
        for neurons in (1, 8, 150, 421)
    },
    "of delays, few bits": (layer("4 bits", bias=False, **DELAYS | {"share": 0.009}), Summation.FLOAT32, SPARSE),
    "of delays, floats": (layer("floats", **DELAYS), Summation.INTEGER, SPARSE),
    "pruned": (layer("floats", **DELAYS | {"taps": 0}), Summation.INTEGER, SPARSE),
    "several spikes": (layer("floats", **DELAYS, fire="multiple", fields=RANGE), Summation.INTEGER, SPARSE),
    "values on a grid": (
        layer("floats", **DELAYS, fields=RANGE | {"coding": "current", "resolution": 2.0**-20}),
        *(Summation.FLOAT64, SPARSE),
    ),
    "any values": (layer("floats", **DELAYS, fields=RANGE | {"coding": "current"}), Summation.FLOAT64, SPARSE),
}
FIRST: list[dict[str, Any]] = [
    {"type": "Conv2d", "name": "first", "in_channels": 4, "out_channels": 8, "kernel_size": 3, "padding": 1},
    {"type": "LIF", "name": "spikes", "decay": 0.75, "threshold": 0.25},
]
POOL: dict[str, Any] = {"type": "SumPool2d", "name": "pool", "kernel_size": 2}  # of whose spikes there may be 4
IMAGES: dict[str, Network] = {
    # A line of outputs is whole vectors of the channels' places, or of twice as many where these are half vectors.
    **{
        f"{channels} channels, {fields}": image(
            "9 bits", (4, 6, 6), **fields | {"out_channels": channels, "padding": 1}
        )
        for channels in (4, 8, 16, 24, 48, 70)
        for fields in ({}, {"stride": 2}, {"groups": 2})
    },
    # With stride 2 and dilation 2 all taps that meet one input are of one parity, and their outputs are neighbours.
    **{
        f"stride {s}, dilation {d}": image("9 bits", (2, 11, 11), out_channels=16, padding=2, stride=s, dilation=d)
        for s, d in ((2, 2), (2, 4), (4, 2), (2, 3))
    },
    # Inside the image a spike reaches five lines of 3 x channels: more registers than sums are held in at once.
    **{
        f"three lines, {kind}, {n}": image(kind, (4, 7, 7), *FIRST, out_channels=n, kernel_size=[5, 3], padding=[2, 1])
        for kind in ("9 bits", "floats")
        for n in (16, 32, 64, 80, 96)
    },
    # Pools that leave a line or columns out, of sums in 16 and in 32 bits; 24 channels have a pass of their own.
    **{
        f"{side} by {side}, {kind}, {n}": image(kind, (3, 9, 11), out_channels=n, padding=1, stride=stride, side=side)
        for kind, side, stride in (("4 bits", 2, 1), ("floats", 3, 1), ("9 bits", 2, 2))
        for n in (16, 24, 48)
    },
    # 60 channels come first in the input: its events are not in the order of the positions.
    **{
        f"narrow {kind}, {fields}": image(kind, (60, 7 * side, 7 * side), *[POOL] * (side - 1), **fields)
        for kind, side in (("8 bits", 1), ("7 bits", 2), ("4 bits", 1))
        for fields in (
            {"out_channels": 12, "kernel_size": 5},
            {"out_channels": 3, "kernel_size": [2, 3], "padding": [1, 1]},
            {"out_channels": 40, "kernel_size": 3, "stride": [1, 2], "padding": 1},
            {"out_channels": 130, "kernel_size": [1, 3]},
            {"out_channels": 260, "kernel_size": 2},  # more outputs than a panel has
            {"out_channels": 9, "kernel_size": 2, "dilation": 2},
        )
    },
}

# A bias of 5 is 40,960 of the weights' unit, 2**-13, which 16 bits do not hold: its neurons would never fire.
LARGE = image("9 bits", (4, 6, 6), out_channels=16)
BIASED = dict(LARGE.tensors) | {"conv.bias": np.full(16, 5, np.float32)}
IMAGES["a sum of more than 16 bits"] = Network(LARGE.spec, BIASED)


def assert_all_agree(network: Network, inputs: DenseInputs, *others: str) -> bool:
    """Require the reference's bits of the event engine on one core and two, whole and cut; tell whether any fires."""
    engines = [EventEngine(network, cores=each) for each in (ONE, TWO)]
    found = assert_same_runs(inputs, ReferenceEngine(network), *engines, *(create(n, network) for n in others))
    for engine in engines:
        answer = engine.answer(inputs)  # which records nothing, so that spikes may be pooled as they are listed
        for field in ("spikes_per_node", "spike_counts", "synaptic_operations"):
            np.testing.assert_equal(getattr(answer, field), getattr(found, field))
        _, state = engine.run(inputs.between(0, 2))
        assert_same_state(engine.run(inputs.between(2, STEPS), state)[1], engine.run(inputs)[1])
    return bool(found.rasters["hidden"].any())


@pytest.mark.parametrize("name", LAYERS)
def test_a_wide_layer_has_the_references_bits_at_any_activity_and_batch(name: str) -> None:
    network, by, summed = LAYERS[name]
    plan = EventEngine(network).plan
    code = plan.rows[plan.names.index("fc")]["kind" if summed == SPARSE else "summed"]
    assert (sums_of(network)["fc"].by, code) == (by, summed)
    others = () if by is Summation.FLOAT64 else ("onnx", "torch")
    fires = [
        assert_all_agree(network, raster(share, batch, network), *others) for share, batch in ((0.02, 7), (0.4, 1))
    ]
    assert fires[1] or "delays" in name or network.spec.layers["hidden"] == 1
    assert_all_agree(network, raster(0.0, 2, network))
    assert_all_agree(network, raster(1.0, 2, network))
    if network.spec.input.high == 4:
        for value in (2.0, 0.3, -3.0):
            inputs = raster(0.1, 3, network)
            inputs.steps[:, 1:] *= np.float32(value)
            assert_all_agree(network, inputs)


@pytest.mark.parametrize("name", IMAGES)
def test_a_convolution_of_any_width_has_the_references_bits(name: str) -> None:
    network = IMAGES[name]
    assert_all_agree(network, raster(0.02, 3, network))
    assert assert_all_agree(network, raster(0.6, 1, network))
