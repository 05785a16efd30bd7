"""Networks for tests: small ones written out, and random dyadic ones on which every engine must agree to the bit.

Dyadic: weights, biases and inputs are multiples of 1/8 with few bits, so that every float32 sum is exact in any order.
Decays, gains, drives, thresholds and reset values are any floats: they act on one neuron at a time, in a fixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from models.coding import EncodedInputs
from models.network import FloatArray, Network
from models.nodes import Fire, Reset
from models.parameters import Shape
from models.spec import Coding, Input, Readout, Spec


def network_of(nodes: list[dict[str, Any]], tensors: dict[str, Any], **spec: Any) -> Network:
    """Return a network from nodes as they stand in JSON and tensors as nested lists."""
    return Network(
        Spec.read({"nodes": nodes} | spec), {name: np.array(value, np.float32) for name, value in tensors.items()}
    )


def toy(coding: Coding = Coding.DIRECT, time_steps: int = 3) -> Network:
    """Two inputs straight into two LIF neurons: decay 0.5, threshold 1."""
    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {"fc.weight": [[1, 0], [0, 1]]},
        input={"shape": [2], "low": 0, "high": 1 if coding is not Coding.DIRECT else 10},
        coding=coding,
        time_steps=time_steps,
        labels=["left", "right"],
    )


@dataclass(frozen=True)
class Case:
    """A network and inputs for it."""

    network: Network
    inputs: EncodedInputs


unit_floats = st.floats(0, 1, width=32)


@st.composite
def neurons(draw: st.DrawFn, name: str, kind: str, inputs: list[str] | None = None) -> dict[str, Any]:
    """Draw a neuron node as JSON, with scalar or per-neuron parameters."""

    def parameter(values: st.SearchStrategy[float]) -> Any:
        return draw(st.one_of(values, st.just("per_neuron")))

    node: dict[str, Any] = {
        "type": kind,
        "name": name,
        "gain": parameter(st.one_of(st.just(1.0), st.floats(-2, 2, width=32))),
        "drive": parameter(st.one_of(st.just(0.0), st.floats(-0.5, 0.5, width=32))),
    }
    if inputs:
        node["inputs"] = inputs
    if kind != "IF":
        node["decay"] = parameter(unit_floats)
    if kind != "LI":
        reset = draw(st.sampled_from(Reset))
        node |= {
            "threshold": parameter(st.floats(0.125, 2, width=32)),
            "fire": draw(st.sampled_from(Fire)),
            "reset": reset,
            "recurrent": draw(st.one_of(st.none(), st.builds(dict, bias=st.booleans()))),
        }
        if reset is Reset.VALUE:
            node["reset_value"] = parameter(st.floats(-1, 1, width=32))
    return node


@st.composite
def connections(draw: st.DrawFn, name: str, shape: Shape) -> dict[str, Any]:
    """Draw a connection that takes `shape`; windows of averages are powers of two, to stay dyadic."""
    if len(shape) == 1:
        features = {"in_features": shape[0], "out_features": draw(st.integers(1, 9))}
        return {"type": "Linear", "name": name, "bias": draw(st.booleans())} | features
    kind = draw(st.sampled_from(["Conv2d", "SumPool2d", "AvgPool2d", "MaxPool2d", "Flatten"]))
    if kind == "Flatten":
        return {"type": kind, "name": name}
    channels, *size = shape
    powers = [1, 2] if kind == "AvgPool2d" else [1, 2, 3]
    kernel = [draw(st.sampled_from([k for k in powers if k <= extent])) for extent in size]
    node: dict[str, Any] = {"type": kind, "name": name, "kernel_size": kernel}
    node["stride"] = [draw(st.integers(1, 2)) for _ in range(2)]
    node["padding"] = [draw(st.integers(0, k // 2)) for k in kernel]
    if kind == "Conv2d":
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        node |= {"in_channels": channels, "out_channels": groups * draw(st.integers(1, 3)), "groups": groups}
        node["bias"] = draw(st.booleans())
        node["dilation"] = [
            draw(st.integers(1, 2)) if 2 * (k - 1) < extent else 1 for k, extent in zip(kernel, size, strict=True)
        ]
    return node


@st.composite
def dyadic_cases(draw: st.DrawFn) -> Case:
    """Draw a network of any of the spec's nodes and resets, recurrent or not, stack or DAG, and a batch for it."""
    coding = draw(st.sampled_from([Coding.DIRECT, Coding.SPIKES]))
    shape: Shape = draw(
        st.one_of(st.tuples(st.integers(1, 12)), st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)))
    )
    input_shape = shape
    nodes: list[dict[str, Any]] = []
    shapes: dict[str, Shape] = {"input": shape}

    def append(node: dict[str, Any], leaving: Shape) -> None:
        nonlocal shape
        nodes.append(node)
        shapes[node["name"]] = shape = leaving

    for layer in range(draw(st.integers(0, 4))):
        node = draw(connections(f"c{layer}", shape))
        append(node, _leaving(node, shape))
        if draw(st.booleans()):
            others = [name for name, other in shapes.items() if other == shape and name != nodes[-1]["name"]]
            shortcut = draw(st.sampled_from([None, *others]))
            inputs = [nodes[-1]["name"], shortcut] if shortcut else None
            append(draw(neurons(f"n{layer}", draw(st.sampled_from(["IF", "LIF"])), inputs)), shape)
    if len(shape) > 1:
        append({"type": "Flatten", "name": "flat"}, (math.prod(shape),))
    classes = draw(st.integers(1, 4))
    append({"type": "Linear", "name": "last", "in_features": shape[0], "out_features": classes}, (classes,))
    readout = draw(st.sampled_from(Readout))
    kind = draw(st.sampled_from(["IF", "LIF"])) if readout is Readout.SPIKE_COUNT else "LI"
    append(draw(neurons("out", kind)), shape)
    spec = Spec(
        input=Input(shape=input_shape, low=-2, high=2),
        coding=coding,
        time_steps=draw(st.integers(1, 12)),
        nodes=nodes,
        readout=readout,
        labels=tuple(f"class {index}" for index in range(classes)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    network = Network(spec, {name: _tensor(name, wanted, rng) for name, wanted in spec.tensor_shapes.items()})
    batch = draw(st.sampled_from([0, 1, 2, 7]))
    if coding is Coding.DIRECT:
        steps = _dyadic(rng, (1, batch, *input_shape))
    else:
        steps = (rng.random((spec.time_steps, batch, *input_shape)) < rng.choice([0.0, 0.1, 0.5, 1.0])).astype(
            np.float32
        )
    return Case(network, EncodedInputs(steps, spec.time_steps))


def _leaving(node: dict[str, Any], shape: Shape) -> Shape:
    from pydantic import TypeAdapter

    from models.nodes import Node

    leaving: Shape = TypeAdapter[Any](Node).validate_python(node).output_shape(shape)
    return leaving


def _dyadic(rng: np.random.Generator, shape: Shape) -> FloatArray:
    return (rng.integers(-8, 9, shape) / 8).astype(np.float32)


def _tensor(name: str, shape: Shape, rng: np.random.Generator) -> FloatArray:
    match name.rpartition(".")[2]:
        case "decay":
            return rng.random(shape, np.float32)
        case "threshold":
            return rng.random(shape, np.float32) + np.float32(0.125)
        case "gain" | "drive" | "reset_value":
            return rng.random(shape, np.float32) - np.float32(0.5)
        case _:
            return _dyadic(rng, shape)
