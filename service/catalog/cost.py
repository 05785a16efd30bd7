"""The cost of a request: those that are small enough run on the event loop itself.

Handing a request to another thread and back takes longer than a small network takes to answer: 80 µs on an idle
machine, and many times that when threads wait for the interpreter. Larger requests run on threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import thread_time
from typing import Self

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Engine
from spikeserve.models.engines.fan_out import constant_nodes, dense_operations
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.nodes import JoinBase

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
    def of(cls, spec: Spec, seconds: float) -> Self:
        """Return the cost of a model whose `seconds_per_step` are these."""
        return cls(seconds, *operations(spec))

    def is_small(self, samples: int, time_steps: int, seconds: float = SECONDS) -> bool:
        """Return whether a request of that size may run on the event loop, if it may take so many seconds there."""
        operations = samples * (self.operations_once + time_steps * self.operations_per_step)
        return operations <= OPERATIONS and samples * time_steps * self.seconds <= seconds


def seconds_per_step(engine: Engine, sample: DenseInputs) -> float:
    """Measure `engine` on one real sample, which also warms it up."""
    engine.run(sample)  # the first run takes longer
    fastest = math.inf
    for number in range(RUNS):
        started = thread_time()
        engine.run(sample)
        fastest = min(fastest, thread_time() - started)
        if number and fastest > 10 * SECONDS:  # not small, and not by chance; to go on would only take time
            break
    return fastest / sample.time_steps


def operations(spec: Spec) -> tuple[float, float]:
    """Return upper bounds of a sample's operations, as (once, per step): every input non-zero, every neuron firing.

    An operation is a weight, a product of two signals or a neuron that is evaluated. Nodes whose input is the same at
    every step count once.
    """
    once, per_step = dense_operations(spec)
    constant = constant_nodes(spec) if spec.coding is Coding.DIRECT else frozenset()
    for node in spec.nodes:
        count = math.prod(spec.output_shapes[node.name])
        if isinstance(node, JoinBase):
            count += node.products([spec.output_shapes[name] for name in spec.sources[node.name]])
        once, per_step = (once + count, per_step) if node.name in constant else (once, per_step + count)
    return once, per_step
