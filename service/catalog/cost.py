"""Which requests are so small that the event loop runs them itself.

To hand a request to another thread and back takes longer than a small network takes to answer: 80 µs where there is
nothing else to do, and many times that where threads wait for the interpreter. Everything else leaves the loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from time import thread_time
from typing import Self

from models.bundle.external import AnyTask
from models.coding import EncodedInputs
from models.engines.base import Runner
from models.engines.fan_out import fan_out, recurrent_fan_out
from models.spec import Coding, Spec, Task
from models.spec.nodes import Delay, Neuron, Node, Spiking, Weighted
from models.spec.onnx_contract import OnnxContract

SECONDS = 200e-6  # the most that a request may take as it is measured on a real input
OPERATIONS = 2**21  # the most if all fired at every step, which bounds an input unlike that one
RUNS = 5  # how often it is measured; the least counts, since a model that loads beside others must not seem slow


@dataclass(frozen=True)
class Cost:
    """What an engine takes for one step of one sample, and the operations of one sample if everything fires."""

    seconds: float
    operations_once: float
    operations_per_step: float

    @classmethod
    def of(cls, engine: Runner, task: AnyTask, sample: EncodedInputs) -> Self:
        """Measure `engine` on one real sample, which warms it up as well."""
        return cls(_seconds(engine, sample) / sample.time_steps, *operations(task))

    def is_small(self, samples: int, time_steps: int) -> bool:
        """Return whether a request of that size may run on the event loop."""
        operations = samples * (self.operations_once + time_steps * self.operations_per_step)
        return operations <= OPERATIONS and samples * time_steps * self.seconds <= SECONDS


def _seconds(engine: Runner, sample: EncodedInputs) -> float:
    engine.run(sample)  # the first run of its kind takes longer
    least = math.inf
    for _ in range(RUNS):
        started = thread_time()
        engine.run(sample)
        least = min(least, thread_time() - started)
        if least > 10 * SECONDS:  # far from quick, and slow to measure
            break
    return least


@singledispatch
def operations(task: Task) -> tuple[float, float]:
    """Return the weights and neurons that a sample meets once, since they see the same at every step, and at each step.

    Both are the most there can be: every input is taken to be non-zero and every neuron to fire.
    """
    raise TypeError(f"no bound for a {type(task).__name__}")


@operations.register
def _(_: OnnxContract) -> tuple[float, float]:
    return 0, math.inf  # what the graph computes is not known, so that it never runs on the event loop


@operations.register
def _(spec: Spec) -> tuple[float, float]:
    totals = {True: 0, False: 0}

    def apply(node: Node, constant: bool) -> bool:
        if isinstance(node, Weighted):
            totals[constant] += int(fan_out(node, spec.input_shapes[node.name]).sum())
        if isinstance(node, Spiking) and node.recurrent:
            size = math.prod(spec.output_shapes[node.name])
            totals[False] += size * recurrent_fan_out(spec.output_shapes[node.name])
        constant = constant and not isinstance(node, Neuron | Delay)
        totals[constant] += math.prod(spec.output_shapes[node.name])
        return constant

    for _ in spec.propagate(spec.coding is Coding.DIRECT, apply, lambda one, other: one and other):
        pass
    return totals[True], totals[False]
