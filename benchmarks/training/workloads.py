"""The networks whose training is measured, as data, and the targets of the project for each."""

from __future__ import annotations

from benchmarks.workloads import FLATTEN, LIF, RECURRENT_LIF, Workload, conv, linear, pool

# Recurrent weights at which gradients through time neither vanish nor grow without bound: what is measured is a step of
# training that works.
GAIN = 0.25

WORKLOADS = (
    Workload(
        name="mlp",
        title="784-1000-10",
        input=(784,),
        nodes=(linear(784, 1000), LIF, linear(1000, 10), LIF),
        time_steps=25,
        activities=(2, 5, 15),
        quick=(5,),
        reset="subtract",
    ),
    Workload(
        name="conv",
        title="12C5-MP2-64C5-MP2-FC10 on 28×28",
        input=(1, 28, 28),
        nodes=(
            *(conv(1, 12, 5), LIF, pool("Max", 2)),
            *(conv(12, 64, 5), LIF, pool("Max", 2), FLATTEN),
            *(linear(1024, 10), LIF),
        ),
        time_steps=20,
        activities=(5,),
        reset="subtract",
    ),
    Workload(
        name="nmnist",
        title="12C5-MP2-32C5-MP2-FC10 on 2×34×34",
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
    Workload(
        name="shd",
        title="700-256R-20",
        input=(700,),
        nodes=(linear(700, 256), RECURRENT_LIF, linear(256, 20), LIF),
        time_steps=100,
        activities=(1.5,),
        reset="subtract",
        recurrent_gain=GAIN,
    ),
    Workload(
        name="braille",
        title="12-128R-7",
        input=(12,),
        nodes=(linear(12, 128), RECURRENT_LIF, linear(128, 7), LIF),
        time_steps=256,
        activities=(22,),  # as in the Braille letters' samples
        quick=(22,),
        reset="subtract",
        recurrent_gain=GAIN,
    ),
)


def target(workload: Workload, activity: object) -> float:
    """Return how many times as fast ours is to be as the fastest of the PyTorch libraries."""
    if any(node.get("recurrent") for node in workload.nodes):
        return 5.0
    if workload.name == "mlp":
        return 2.0 if activity == 15 else 3.5
    return 2.0


MEAN_TARGET = 3.5  # of the geometric mean of all
