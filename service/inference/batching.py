"""What an engine's runs hold: how many samples, and whether a run waits for more of them.

    event, reference   each request as soon as a worker is free, beside all others. What waits then goes together as far
                       as that is expected to take no longer than RUN_SECONDS: it shares what every run costs once.
    onnx, torch        a model with no run going starts at once; one with a run going starts another beside it as soon
                       as that is full or its oldest request has waited for the longest delay. Full is a run that is
                       expected to take LONG_RUN_SECONDS, but on a GPU, where many samples take as long as one.

A request of more samples than one run holds is split, and others come between its parts. Grouping changes no bit of an
answer on `event` and `reference`, whose samples never meet, nor on any engine where a network's sums are exact (dyadic
weights and inputs). Elsewhere the libraries behind `onnx` and `torch` may sum in another order for another batch size:
an answer's last bits, and with them a spike that is that close to the threshold, can then hang on what ran beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from models.engines import ENGINES, EngineName
from service.catalog.cost import Cost
from service.settings import Settings

RUN_SECONDS = 0.01  # what a small request may have to wait for behind a run that is one of many
LONG_RUN_SECONDS = 0.05  # the same where a sample takes less time the more others share its run


class Policy(Protocol):
    """How the requests for one model become runs of its engine."""

    def most(self, cost: Cost, time_steps: int) -> int:
        """Return how many samples one run may hold, at least one."""
        ...

    def delay(self, *, idle: bool, full: bool, waited: float) -> float:
        """Return for how many seconds to wait for more requests before a run starts, 0 or less to start it now.

        `idle`: no run of the model is going. `full`: no more would fit. `waited`: the seconds of the oldest request.
        """
        ...


def expected_to_take(seconds: float, cost: Cost, time_steps: int, max_batch: int) -> int:
    """Return how many samples are expected to take so long: at least one, and no more than `max_batch`."""
    expected = max(cost.seconds * time_steps, 1e-9)
    return max(1, int(min(max_batch, seconds / expected)))


@dataclass(frozen=True)
class SideBySide:
    """Never waits, and lets together what is expected to be over soon."""

    max_batch: int

    def most(self, cost: Cost, time_steps: int) -> int:
        """Return as many samples as are expected to take RUN_SECONDS."""
        return expected_to_take(RUN_SECONDS, cost, time_steps, self.max_batch)

    def delay(self, *, idle: bool, full: bool, waited: float) -> float:  # noqa: ARG002
        """Start now."""
        return 0.0


@dataclass(frozen=True)
class Batched:
    """Waits for a full run, but not where the engine has nothing else to do and not for long.

    A run is full at `max_batch` samples, or as many as are expected to take `run_seconds`.
    """

    max_batch: int
    max_delay: float
    run_seconds: float = LONG_RUN_SECONDS

    def most(self, cost: Cost, time_steps: int) -> int:
        """Return as many samples as are expected to take `run_seconds`."""
        return expected_to_take(self.run_seconds, cost, time_steps, self.max_batch)

    def delay(self, *, idle: bool, full: bool, waited: float) -> float:
        """Start now where nothing runs or nothing more fits, else once the oldest request has waited long enough."""
        return 0.0 if idle or full else self.max_delay - waited


def policy_of(engine: str, settings: Settings) -> Policy:
    """Return the policy of an engine, by its name."""
    if ENGINES[EngineName(engine)].batches:
        run_seconds = LONG_RUN_SECONDS if settings.device == "cpu" else math.inf
        return Batched(settings.max_batch, settings.max_batch_delay_ms / 1000, run_seconds)
    return SideBySide(settings.max_batch)
