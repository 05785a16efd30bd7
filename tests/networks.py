"""Networks for tests: small ones written out, and random dyadic ones on which every engine must agree to the bit.

Dyadic: weights, biases and inputs are multiples of 1/8 with few bits, so that every float32 sum is exact in any order.
Decays, gains, drives, thresholds and reset values are any floats: they act on one neuron at a time, in a fixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st

from models.coding import EncodedInputs
from models.spec import Coding, Input, Readout, Spec
from models.spec.network import FloatArray, Network
from models.spec.nodes import (
    LEAKS,
    RESET_TIMINGS,
    Adaptive,
    Charge,
    Fire,
    Integrating,
    Joins,
    Reset,
    ResetTiming,
    Spiking,
    Synapse,
)
from models.spec.parameters import Shape


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
        input={"shape": [2], "low": 0, "high": 10 if coding in (Coding.DIRECT, Coding.CURRENT) else 1},
        coding=coding,
        time_steps=time_steps,
        labels=["left", "right"],
    )


@dataclass(frozen=True)
class Case:
    """A network, inputs for it, and the steps before which a run of them is cut."""

    network: Network
    inputs: EncodedInputs
    cuts: tuple[int, ...]

    @property
    def parts(self) -> list[EncodedInputs]:
        """The inputs of each part of a run that is cut."""
        steps, ends = self.inputs.steps, [*self.cuts, self.inputs.time_steps]
        return [
            EncodedInputs(steps if self.inputs.constant else steps[start:end], end - start)
            for start, end in zip([0, *self.cuts], ends, strict=True)
        ]


unit_floats = st.floats(0, 1, width=32)


FIRING = tuple(node.__name__ for node in get_args(Spiking))
ADAPTIVE = tuple(node.__name__ for node in get_args(Spiking) if issubclass(node, Adaptive))
INTEGRATING = tuple(node.__name__ for node in get_args(Integrating))

# The connections that take an input of so many axes, the usual ones more often.
CONNECTIONS = {
    1: ["Linear"] * 4 + ["Scale", "Delay"],
    2: ["Conv1d"] * 4 + ["Flatten", "Scale", "Delay"],
    3: ["Conv2d", "Conv2d", "SumPool2d", "AvgPool2d", "MaxPool2d", "Flatten", "Scale", "Delay"],
}


@st.composite
def neurons(draw: st.DrawFn, name: str, kind: str, inputs: list[str] | None = None) -> dict[str, Any]:
    """Draw a neuron node as JSON, with scalar or per-neuron parameters, of any charge, synapse, reset and timing."""

    def parameter(values: st.SearchStrategy[float]) -> Any:
        return draw(st.one_of(values, st.just("per_neuron")))

    node: dict[str, Any] = {"type": kind, "name": name}
    if inputs:
        node["inputs"] = inputs
    if kind != "Threshold":
        node["gain"] = parameter(st.one_of(st.just(1.0), st.floats(-2, 2, width=32)))
        node["start"] = parameter(st.one_of(st.just(0.0), st.floats(-1, 1, width=32)))
    charge = draw(st.sampled_from(Charge)) if "L" in kind else Charge.DECAY
    if "L" in kind:
        node["charge"] = charge
        parameters = draw(st.sampled_from(LEAKS[charge]))
        node[parameters] = parameter(st.floats(1, 8, width=32) if parameters == "tau" else unit_floats)
    if charge is not Charge.DECAY:
        node["leak"] = parameter(st.one_of(st.just(0.0), st.floats(-0.5, 1.5, width=32)))
    elif kind != "Threshold":
        node["drive"] = parameter(st.one_of(st.just(0.0), st.floats(-0.5, 0.5, width=32)))
    synapse = draw(st.sampled_from(Synapse)) if "Cuba" in kind else None
    if synapse:
        by_rate = synapse in (Synapse.EULER, Synapse.JUMP)
        node |= {"synapse": synapse, "syn_rate" if by_rate else "syn_decay": parameter(unit_floats)}
        node["syn_gain"] = parameter(st.one_of(st.just(1.0), st.floats(-2, 2, width=32)))
    if kind in FIRING:
        node["fire"] = fire = draw(st.sampled_from(Fire))
        # A large threshold keeps the counts of several spikes, and so the sums over them, within float32.
        node["threshold"] = parameter(
            st.floats(4, 9, width=32) if fire is Fire.MULTIPLE else st.floats(0.125, 2, width=32)
        )
    if kind in ADAPTIVE:
        node |= {"adapt_decay": parameter(unit_floats), "adapt_gain": parameter(st.floats(0, 2, width=32))}
    if kind in FIRING and kind != "Threshold":
        reset = draw(st.sampled_from(Reset))
        at_once = fire is Fire.MULTIPLE or kind in ADAPTIVE
        timings = (ResetTiming.SAME_STEP,) if at_once else RESET_TIMINGS[reset]
        sums = charge is Charge.DECAY if synapse is None else synapse in (Synapse.DECAY, Synapse.JUMP)
        node |= {
            "reset": reset,
            "reset_timing": draw(st.sampled_from(timings)),
            "floor": draw(st.one_of(st.none(), st.none(), st.floats(-2, 0.5, width=32), st.just("per_neuron"))),
            "recurrent": draw(st.one_of(st.none(), recurrences(sums=sums))),
        }
        if reset is Reset.VALUE:
            node["reset_value"] = parameter(st.floats(-1, 1, width=32))
    return node


@st.composite
def recurrences(draw: st.DrawFn, *, sums: bool) -> dict[str, Any]:
    """Draw a recurrent connection as JSON."""
    bias = draw(st.booleans())
    return {
        "bias": bias,
        "bias_at_start": draw(st.booleans()) if bias else True,
        "joins": draw(st.sampled_from(Joins)) if sums else Joins.INPUT,
    }


@st.composite
def connections(draw: st.DrawFn, name: str, shape: Shape, *, dyadic: bool = True) -> dict[str, Any]:
    """Draw a connection that takes `shape`; windows of averages are powers of two, where they are to stay dyadic."""
    kind = draw(st.sampled_from(CONNECTIONS[len(shape)]))
    node: dict[str, Any] = {"type": kind, "name": name}
    if kind == "Flatten":
        return node
    if kind == "Scale":
        factors = [-0.5, 0.0, 1.0, 2.0] if dyadic else [-0.5, 0.0, 3.0, 0.3]
        return node | {"scale": draw(st.one_of(st.sampled_from(factors), st.just("per_neuron")))}
    if kind == "Delay":
        return node | {"delay": draw(st.one_of(st.integers(0, 4), st.just("per_neuron")))}
    if kind == "Linear":
        return node | {"in_features": shape[0], "out_features": draw(st.integers(1, 9)), "bias": draw(st.booleans())}
    channels, *size = shape
    extents = [1, 2] if dyadic and kind == "AvgPool2d" else [1, 2, 3]
    kernel = [draw(st.sampled_from([k for k in extents if k <= extent])) for extent in size]
    swept: dict[str, Any] = {"kernel_size": kernel, "stride": [draw(st.integers(1, 2)) for _ in size]}
    swept["padding"] = [draw(st.integers(0, k // 2)) for k in kernel]
    if kind in ("Conv1d", "Conv2d"):
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
        node |= {"in_channels": channels, "out_channels": groups * draw(st.integers(1, 3)), "groups": groups}
        node["bias"] = draw(st.booleans())
        swept["dilation"] = [
            draw(st.integers(1, 2)) if 2 * (k - 1) < extent else 1 for k, extent in zip(kernel, size, strict=True)
        ]
        if draw(st.integers(0, 3)) == 0:
            swept |= {"padding": "same", "stride": [1 for _ in size]}
    if kind == "Conv1d":
        swept = {field: value if value == "same" else value[0] for field, value in swept.items()}
    return node | swept


@st.composite
def dyadic_cases(draw: st.DrawFn, *, dyadic: bool = True) -> Case:
    """Draw a network of any of the spec's nodes and resets, recurrent or not, stack or DAG, and a batch for it.

    Without `dyadic`, weights, biases, scales and inputs that are no spikes are any floats.
    """
    coding = draw(st.sampled_from([Coding.DIRECT, Coding.SPIKES, Coding.CURRENT]))
    shape: Shape = draw(
        st.one_of(
            st.tuples(st.integers(1, 12)),
            st.tuples(st.integers(1, 3), st.integers(2, 8)),
            st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(2, 6)),
        )
    )
    input_shape = shape
    nodes: list[dict[str, Any]] = []
    shapes: dict[str, Shape] = {"input": shape}

    def append(node: dict[str, Any], leaving: Shape) -> None:
        nonlocal shape
        nodes.append(node)
        shapes[node["name"]] = shape = leaving

    for layer in range(draw(st.integers(0, 4))):
        node = draw(connections(f"c{layer}", shape, dyadic=dyadic))
        append(node, _leaving(node, shape))
        if draw(st.booleans()):
            others = [name for name, other in shapes.items() if other == shape and name != nodes[-1]["name"]]
            shortcut = draw(st.sampled_from([None, *others]))
            inputs = [nodes[-1]["name"], shortcut] if shortcut else None
            append(draw(neurons(f"n{layer}", draw(st.sampled_from(FIRING)), inputs)), shape)
    if len(shape) > 1:
        append({"type": "Flatten", "name": "flat"}, (math.prod(shape),))
    classes = draw(st.integers(1, 4))
    append({"type": "Linear", "name": "last", "in_features": shape[0], "out_features": classes}, (classes,))
    readout = draw(st.sampled_from(Readout))
    append(
        draw(neurons("out", draw(st.sampled_from(FIRING if readout is Readout.SPIKE_COUNT else INTEGRATING)))), shape
    )
    spec = Spec(
        input=Input(shape=input_shape, low=-2, high=2),
        coding=coding,
        time_steps=draw(st.one_of(st.just(1), st.integers(2, 12))),
        nodes=nodes,
        readout=readout,
        labels=tuple(f"class {index}" for index in range(classes)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    by_name = {node.name: node for node in spec.nodes}
    network = Network(
        spec,
        {
            name: _tensor(name, wanted, rng, by_name[name.partition(".")[0]], dyadic)
            for name, wanted in spec.tensor_shapes.items()
        },
    )
    batch = draw(st.sampled_from([0, 1, 2, 7]))
    if coding is Coding.DIRECT:
        steps = _values(rng, (1, batch, *input_shape), dyadic)
    elif coding is Coding.CURRENT:
        steps = _values(rng, (spec.time_steps, batch, *input_shape), dyadic)
    else:
        steps = (rng.random((spec.time_steps, batch, *input_shape)) < rng.choice([0.0, 0.1, 0.5, 1.0])).astype(
            np.float32
        )
    cuts = draw(st.sets(st.integers(1, spec.time_steps - 1), max_size=3)) if spec.time_steps > 1 else set[int]()
    return Case(network, EncodedInputs(steps, spec.time_steps), tuple(sorted(cuts)))


def _leaving(node: dict[str, Any], shape: Shape) -> Shape:
    from pydantic import TypeAdapter

    from models.spec.nodes import Node

    leaving: Shape = TypeAdapter[Any](Node).validate_python(node).output_shape(shape)
    return leaving


def _values(rng: np.random.Generator, shape: Shape, dyadic: bool) -> FloatArray:
    if dyadic:
        return (rng.integers(-8, 9, shape) / 8).astype(np.float32)
    scale = 2.0 ** rng.uniform(-12, 0, shape)  # small and large ones, which float32 adds up in another way each time
    return np.clip(rng.normal(0, 1, shape) * scale, -2, 2).astype(np.float32)


def _tensor(name: str, shape: Shape, rng: np.random.Generator, node: Any, dyadic: bool) -> FloatArray:
    match name.rpartition(".")[2]:
        case "decay" | "syn_decay" | "adapt_decay" | "adapt_gain" | "rate" | "syn_rate":
            return rng.random(shape, np.float32)
        case "tau":
            return 1 + 7 * rng.random(shape, np.float32)
        case "threshold":
            return rng.random(shape, np.float32) + np.float32(4 if node.fire is Fire.MULTIPLE else 0.125)
        case "gain" | "syn_gain" | "drive" | "leak" | "reset_value" | "floor" | "start":
            return rng.random(shape, np.float32) - np.float32(0.5)
        case "delay":
            return rng.integers(0, 5, shape).astype(np.float32)
        case "scale":
            return (rng.integers(-2, 3, shape) / (2 if dyadic else 3)).astype(np.float32)
        case _:
            return _values(rng, shape, dyadic)
