"""The cost of a request: those that are small enough run on the event loop itself.

Handing a request to another thread and back takes longer than a small network takes to answer: 80 µs on an idle
machine, and many times that when threads wait for the interpreter. Larger requests run on threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from time import thread_time
from typing import Self

from spikeserve.models.bundle.external import AnyTask
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Runner
from spikeserve.models.engines.fan_out import fan_out, recurrent_fan_out
from spikeserve.models.spec import Coding, Spec, Task
from spikeserve.models.spec.nodes import Delay, JoinBase, Neuron, Node, Spiking, Weighted
from spikeserve.models.spec.onnx_contract import OnnxContract

SECONDS = 200e-6  # the most that a small request is expected to take, measured on a real sample
OPERATIONS = 2**21  # the most that it could need if all neurons fired at every step, whatever its input
RUNS = 5  # how often it is measured; the fastest counts, since other models may be loading at the same time


@dataclass(frozen=True)
class Cost:
    """An engine's seconds for one step of one sample, and a sample's operations if every neuron fires."""

    seconds: float
    operations_once: float
    operations_per_step: float

    @classmethod
    def of(cls, engine: Runner, task: AnyTask, sample: DenseInputs) -> Self:
        """Measure `engine` on one real sample, which also warms it up."""
        return cls(_seconds(engine, sample) / sample.time_steps, *operations(task))

    @classmethod
    def known(cls, task: AnyTask, seconds: float) -> Self:
        """Return the cost of a model whose seconds for one step of one sample were measured before."""
        return cls(seconds, *operations(task))

    def is_small(self, samples: int, time_steps: int, seconds: float = SECONDS) -> bool:
        """Return whether a request of that size may run on the event loop, if it may take so many seconds there."""
        operations = samples * (self.operations_once + time_steps * self.operations_per_step)
        return operations <= OPERATIONS and samples * time_steps * self.seconds <= seconds


def _seconds(engine: Runner, sample: DenseInputs) -> float:
    engine.run(sample)  # the first run takes longer
    fastest = math.inf
    for _ in range(RUNS):
        started = thread_time()
        engine.run(sample)
        fastest = min(fastest, thread_time() - started)
        if fastest > 10 * SECONDS:  # certainly not small; measuring it again would only take time
            break
    return fastest


@singledispatch
def operations(task: Task) -> tuple[float, float]:
    """Return upper bounds of a sample's operations, as (once, per step): every input non-zero, every neuron firing.

    An operation is a weight, a product of two signals or a neuron that is evaluated. Nodes whose input is the same at
    every step count once.
    """
    raise TypeError(f"no bound for a {type(task).__name__}")


@operations.register
def _(_: OnnxContract) -> tuple[float, float]:
    return 0, math.inf  # what the graph computes is not known, so it never runs on the event loop


@operations.register
def _(spec: Spec) -> tuple[float, float]:
    totals = {True: 0, False: 0}

    def apply(node: Node, constant: bool) -> bool:
        if isinstance(node, Weighted):
            totals[constant] += int(fan_out(node, spec.input_shapes[node.name]).sum())
        if isinstance(node, Spiking) and node.recurrent:
            size = math.prod(spec.output_shapes[node.name])
            totals[False] += size * recurrent_fan_out(spec.output_shapes[node.name])
        if isinstance(node, JoinBase):
            totals[constant] += node.products([spec.output_shapes[name] for name in spec.sources[node.name]])
        constant = constant and not (isinstance(node, Neuron | Delay) or node.by_step)
        totals[constant] += math.prod(spec.output_shapes[node.name])
        return constant

    for _ in spec.propagate(spec.coding is Coding.DIRECT, apply, lambda _, inputs: all(inputs)):
        pass
    return totals[True], totals[False]
