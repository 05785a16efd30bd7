"""The cost of a run: one that is expected to be short runs on the event loop itself.

Most networks answer in less time than a request takes to another thread and back: 80 µs on an idle machine, and many
times that when threads wait for the interpreter. The expected time is measured when the version loads, and from then on
by real runs. So a measurement on a busy machine is soon forgotten. Some inputs make a run longer: on the event loop it
is stopped at `Cost.most_operations`, and begins again on a thread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import thread_time

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Engine

LOOP_SECONDS = 1e-3  # the most that one sample is expected to take on the event loop
ITERATION_SECONDS = 5e-3  # the most that a batch is expected to take there, and after which no other begins
MORE_OPERATIONS = 2**24  # of a batch there, beside twice the expected ones; they take some 1 to 3 ms
WINDOW_OPERATIONS = 2**23  # of a window there if all neurons fire; to stop it would lose its state
WEIGHT = 1 / 8  # of the newest run in the expected seconds
RUNS = 5  # how often it is measured; the fastest counts, since other models may be loading at the same time


@dataclass
class Cost:
    """The seconds and the synaptic operations that a step of a sample is expected to take."""

    seconds: float
    operations: float = 0.0  # unknown before the first run

    def expected(self, samples: int, time_steps: int) -> float:
        """Return the seconds that a run of that size is expected to take."""
        return samples * time_steps * self.seconds

    def room(self, time_steps: int) -> int:
        """Return the most samples of `time_steps` that a batch on the event loop may have; 0 if one takes too long."""
        one = max(self.expected(1, time_steps), 1e-9)
        return int(ITERATION_SECONDS / one) if one <= LOOP_SECONDS else 0

    def most_operations(self, samples: int, time_steps: int) -> int:
        """Return how many operations a run of that size may have on the event loop."""
        return MORE_OPERATIONS + int(2 * samples * time_steps * self.operations)

    def may_run_windows(self, dense: tuple[int, int], time_steps: int) -> bool:
        """Return whether the event loop may run windows of `time_steps` of a model with these `dense` operations."""
        operations = dense[0] + time_steps * dense[1]
        return operations <= WINDOW_OPERATIONS and self.expected(1, time_steps) <= LOOP_SECONDS

    def took(self, seconds: float, operations: float, steps: int) -> None:
        """Learn from a run on any thread; `steps` are those of all its samples together."""
        self.seconds += WEIGHT * (seconds / steps - self.seconds)
        self.operations += (WEIGHT if self.operations else 1.0) * (operations / steps - self.operations)


def seconds_per_step(engine: Engine, sample: DenseInputs) -> float:
    """Measure `engine` on one real sample, which also warms it up."""
    engine.run(sample)  # the first run takes longer
    fastest = math.inf
    for number in range(RUNS):
        started = thread_time()
        engine.run(sample)
        fastest = min(fastest, thread_time() - started)
        if number and fastest > 2 * LOOP_SECONDS:  # not small, and not by chance; to go on would only take time
            break
    return fastest / sample.time_steps
