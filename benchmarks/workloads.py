"""The networks that engines are measured on, as data: a new one is a few lines in WORKLOADS.

All neurons of a network share one rule that every contestant can be told to follow exactly: v = decay * v + i, fire,
reset to 0 in the same step. (By subtraction would not do: snnTorch then fires by another rule where a membrane is still
above its threshold after a reset, and Norse's IAF has no such reset. Training, whose workloads do reset by subtraction,
compares each library with its own rule.) Weights lie on a dyadic grid, so that their sums
are exact in any order, and the threshold half a grid step off it, so that `>` and `>=` agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import Shape

GRID = 2.0**-12  # every weight is a multiple of it
THRESHOLD = 1 + GRID / 2
DECAY = 1 - 2.0**-4  # of every LIF: exact in float32, and so is 1 - decay, by which some libraries scale the input

Activity: TypeAlias = float | Literal["direct"]  # the percentage of inputs that spike at a step, or direct coding
Node: TypeAlias = dict[str, Any]


def linear(inputs: int, outputs: int) -> Node:
    """Return a fully connected layer without bias."""
    return {"type": "Linear", "in_features": inputs, "out_features": outputs, "bias": False}


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> Node:
    """Return a convolution over squares, without bias."""
    channels = {"in_channels": inputs, "out_channels": outputs, "bias": False}
    return {"type": "Conv2d", "kernel_size": kernel, "stride": stride, "padding": padding} | channels


def pool(kind: Literal["Sum", "Max", "Avg"], size: int) -> Node:
    """Return a pool over squares that touch."""
    return {"type": f"{kind}Pool2d", "kernel_size": size}


FLATTEN: Node = {"type": "Flatten"}
IF: Node = {"type": "IF"}
LIF: Node = {"type": "LIF", "decay": DECAY}
RECURRENT_LIF: Node = LIF | {"recurrent": {"bias": False}}


def stack(given: dict[str, Any], nodes: Sequence[Node], time_steps: int, **fields: Any) -> Spec:
    """Return a network of nodes one after the other, from an input's fields.

    A node is called after its type and place, such as linear0, and a class after its number.
    """
    named = [{"name": f"{node['type'].lower()}{place}"} | node for place, node in enumerate(nodes)]
    classes = next(node["out_features"] for node in reversed(nodes) if "out_features" in node)
    labels = [str(label) for label in range(classes)]
    return Spec.read({"input": given, "time_steps": time_steps, "nodes": named, "labels": labels} | fields)


def drawn(spec: Spec, seed: int, deviation: float) -> Network:
    """Return a network whose weights are normal, and multiples of 1 / 64, so that sums are exact in any order."""
    rng = np.random.default_rng(seed)
    return Network(
        spec,
        {
            name: (rng.normal(0, deviation, shape) * 64).round().astype(np.float32) / np.float32(64)
            for name, shape in spec.tensor_shapes.items()
        },
    )


@dataclass(frozen=True)
class Workload:
    """A network, and the input activities to run it at; its weights and inputs follow from `seed`."""

    name: str
    title: str
    input: Shape
    nodes: tuple[Node, ...]
    time_steps: int
    activities: tuple[Activity, ...]
    quick: tuple[Activity, ...] = ()  # the activities that `--quick` runs; without any it leaves the workload out
    seed: int = 0
    reset: Literal["value", "subtract"] = "value"
    # The standard deviation of recurrent weights, in 1 / sqrt(neurons); without it they are scaled as the others are.
    recurrent_gain: float | None = None

    def spec(self, activity: Activity, threshold: float = THRESHOLD) -> Spec:
        """Return the network."""
        neuron = {"threshold": threshold, "reset": self.reset}
        nodes = [(neuron if node["type"] in ("IF", "LIF") else {}) | node for node in self.nodes]
        coding = Coding.DIRECT if activity == "direct" else Coding.SPIKES
        return stack({"shape": self.input}, nodes, self.time_steps, coding=coding)


def is_dense(activity: Activity) -> bool:
    """Return whether half of all neurons are to fire at each step, rather than a few in a hundred."""
    return activity != "direct" and activity >= 50


MLP = Workload(
    name="mlp",
    title="784-1000-10 LIF",
    input=(784,),
    nodes=(linear(784, 1000), LIF, linear(1000, 10), LIF),
    time_steps=25,
    activities=(2, 5, 15, "direct", 50),
    quick=(5, 50),
)
CONV = Workload(
    name="conv",
    title="12C5-MP2-64C5-MP2-FC10 LIF on 28×28",
    input=(1, 28, 28),
    nodes=(
        *(conv(1, 12, 5), LIF, pool("Max", 2)),
        *(conv(12, 64, 5), LIF, pool("Max", 2), FLATTEN),
        *(linear(1024, 10), LIF),
    ),
    time_steps=50,
    activities=(5, "direct"),
)
SHD = Workload(
    name="shd",
    title="700-256R-20 LIF",
    input=(700,),
    nodes=(linear(700, 256), RECURRENT_LIF, linear(256, 20), LIF),
    time_steps=100,
    activities=(1.5,),
    quick=(1.5,),
)
WORKLOADS = (
    MLP,
    CONV,
    Workload(
        name="nmnist",
        title="16C5s2p1-16C3p1-SP2-8C3p1-SP2-FC256-FC10 IF on 2×34×34",
        input=(2, 34, 34),
        nodes=(
            *(conv(2, 16, 5, stride=2, padding=1), IF),
            *(conv(16, 16, 3, padding=1), IF, pool("Sum", 2)),
            *(conv(16, 8, 3, padding=1), IF, pool("Sum", 2), FLATTEN),
            *(linear(128, 256), IF, linear(256, 10), IF),
        ),
        time_steps=30,
        activities=(2,),
    ),
    SHD,
    Workload(
        name="wide",
        title="2312-2048-2048-10 LIF",
        input=(2312,),
        nodes=(linear(2312, 2048), LIF, linear(2048, 2048), LIF, linear(2048, 10), LIF),
        time_steps=25,
        activities=(5,),
    ),
    replace(
        SHD,
        name="shd1024",
        title="700-1024R-20 LIF",
        nodes=(linear(700, 1024), RECURRENT_LIF, linear(1024, 20), LIF),
        quick=(),
    ),
    Workload(
        name="pools",
        title="4×(32C3-MP2)-FC10 LIF on 2×64×64",
        input=(2, 64, 64),
        nodes=(
            *(conv(2, 32, 3, padding=1), LIF, pool("Max", 2)),
            *(conv(32, 32, 3, padding=1), LIF, pool("Max", 2)) * 3,
            *(FLATTEN, linear(512, 10), LIF),
        ),
        time_steps=16,
        activities=(3, 5),
    ),
    Workload(
        name="strided",
        title="16C5s2p2-32C3s2p1-64C3s2p1-FC128-FC4 LIF on 2×128×128",
        input=(2, 128, 128),
        nodes=(
            *(conv(2, 16, 5, stride=2, padding=2), LIF, conv(16, 32, 3, stride=2, padding=1), LIF),
            *(conv(32, 64, 3, stride=2, padding=1), LIF, FLATTEN, linear(16384, 128), LIF, linear(128, 4), LIF),
        ),
        time_steps=10,
        activities=(1,),
    ),
    Workload(
        name="small",
        title="12-40R-7 LIF",
        input=(12,),
        nodes=(linear(12, 40), RECURRENT_LIF, linear(40, 7), LIF),
        time_steps=256,
        activities=(5,),
    ),
    Workload(
        name="vgg",
        title="2×64C3-MP2-2×128C3-MP2-2×256C3-MP2-FC512-FC10 LIF on 3×32×32",
        input=(3, 32, 32),
        nodes=(
            *(conv(3, 64, 3, padding=1), LIF, conv(64, 64, 3, padding=1), LIF, pool("Max", 2)),
            *(conv(64, 128, 3, padding=1), LIF, conv(128, 128, 3, padding=1), LIF, pool("Max", 2)),
            *(conv(128, 256, 3, padding=1), LIF, conv(256, 256, 3, padding=1), LIF, pool("Max", 2), FLATTEN),
            *(linear(4096, 512), LIF, linear(512, 10), LIF),
        ),
        time_steps=8,
        activities=("direct",),
    ),
)

# Those that are trained. Recurrent weights are such that gradients through time neither vanish nor grow without bound:
# what is measured is a step of training that works.
GAIN = 0.25
TRAINED = (
    replace(MLP, activities=(2, 5, 15), quick=(5,), reset="subtract"),
    replace(CONV, time_steps=20, activities=(5,), reset="subtract"),
    Workload(
        name="nmnist",
        title="12C5-MP2-32C5-MP2-FC10 LIF on 2×34×34",
        input=(2, 34, 34),
        nodes=(
            *(conv(2, 12, 5), LIF, pool("Max", 2)),
            *(conv(12, 32, 5), LIF, pool("Max", 2), FLATTEN),
            *(linear(800, 10), LIF),
        ),
        time_steps=30,
        activities=(2,),
        reset="subtract",
    ),
    replace(SHD, quick=(), reset="subtract", recurrent_gain=GAIN),
    Workload(
        name="braille",
        title="12-128R-7 LIF",
        input=(12,),
        nodes=(linear(12, 128), RECURRENT_LIF, linear(128, 7), LIF),
        time_steps=256,
        activities=(22,),  # as in the Braille letters' samples
        quick=(22,),
        reset="subtract",
        recurrent_gain=GAIN,
    ),
)
