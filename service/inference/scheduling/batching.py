"""Batching: how many samples one run of an engine holds, and whether a run waits for more requests.

    event, reference   a run starts as soon as a thread is free. Requests that are waiting then share it, as long as the
                       run is expected to take at most RUN_SECONDS: the fixed cost of a run is paid once.
    onnx, torch        if no run of the model is in progress, a run starts at once. Otherwise the next starts as soon as
                       it is full, or its oldest request has waited `max_batch_delay_ms`. On a CPU a run is full when it
                       is expected to take LONG_RUN_SECONDS; on a GPU, where many samples take as long as one, only
                       `max_batch` bounds it.

Up to JOINED_BYTES of the states of sessions stay in a core's cache; on `event` and `reference`, no run has more of
them.

A request with more samples than one run holds is split, and other requests may run between its shards. Batching does
not change a bit of an answer on `event` and `reference`, which compute each sample alone, nor on any engine where a
network's sums are exact (dyadic weights and inputs). Elsewhere the libraries behind `onnx` and `torch` may sum in
another order for another batch size: an answer's last bits, and so a spike that close to the threshold, can then depend
on the other samples in the batch. An external ONNX model runs its samples one by one, and no two requests share a run,
unless its contract promises independent rows; a batch is then only made where it was found to change no bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from spikeserve.models.engines import ENGINES, EngineName
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.settings import Settings

RUN_SECONDS = 0.01  # how long a run may take, since a small request may have to wait behind it
JOINED_BYTES = 2**20  # of states in one run; measured: 16 of 181 KB take 1.2 times as long for each as 6 of them
LONG_RUN_SECONDS = 0.05  # the same for engines whose time per sample falls as the batch grows


class Policy(Protocol):
    """How the requests for one model are batched into runs of its engine."""

    def max_samples(self, cost: Cost, time_steps: int) -> int:
        """Return how many samples one run may hold, at least one."""
        ...

    def max_states(self, state_bytes: int) -> int:
        """Return how many sessions with states of so many bytes may share a run, at least one."""
        ...

    def delay(self, *, idle: bool, full: bool, waited: float) -> float:
        """Return how many seconds to wait for more requests before a run starts; 0 or less starts it now.

        `idle`: no run of the model is in progress. `full`: no other request fits into the run. `waited`: the seconds
        that the oldest request has waited.
        """
        ...


def samples_within(seconds: float, cost: Cost, time_steps: int, max_batch: int) -> int:
    """Return how many samples an engine is expected to run in `seconds`: at least 1, at most `max_batch`."""
    expected = max(cost.seconds * time_steps, 1e-9)
    return max(1, int(min(max_batch, seconds / expected)))


@dataclass(frozen=True)
class ImmediatePolicy:
    """Starts a run at once, with the waiting requests that are expected to take at most RUN_SECONDS together."""

    max_batch: int

    def max_samples(self, cost: Cost, time_steps: int) -> int:
        """Return how many samples are expected to take RUN_SECONDS."""
        return samples_within(RUN_SECONDS, cost, time_steps, self.max_batch)

    def max_states(self, state_bytes: int) -> int:
        """Return how many states are at most JOINED_BYTES."""
        return max(1, JOINED_BYTES // state_bytes)

    def delay(self, *, idle: bool, full: bool, waited: float) -> float:  # noqa: ARG002
        """Start now."""
        return 0.0


@dataclass(frozen=True)
class BatchingPolicy:
    """Waits up to `max_delay` seconds for a full run, unless no other run of the model is in progress.

    A run is full at `max_batch` samples, or at as many as are expected to take `run_seconds`.
    """

    max_batch: int
    max_delay: float
    run_seconds: float = LONG_RUN_SECONDS

    def max_samples(self, cost: Cost, time_steps: int) -> int:
        """Return how many samples are expected to take `run_seconds`."""
        return samples_within(self.run_seconds, cost, time_steps, self.max_batch)

    def max_states(self, state_bytes: int) -> int:  # noqa: ARG002
        """Return as many as samples: a run's fixed cost outweighs the copies."""
        return self.max_batch

    def delay(self, *, idle: bool, full: bool, waited: float) -> float:
        """Start now if no run is in progress or the run is full, else once the oldest has waited `max_delay`."""
        return 0.0 if idle or full else self.max_delay - waited


def policy_of(engine: str, settings: Settings) -> Policy:
    """Return the policy of an engine, by its name."""
    if ENGINES[EngineName(engine)].batches:
        run_seconds = LONG_RUN_SECONDS if settings.device == "cpu" else math.inf
        return BatchingPolicy(settings.max_batch, settings.max_batch_delay_ms / 1000, run_seconds)
    return ImmediatePolicy(settings.max_batch)
