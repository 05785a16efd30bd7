"""Batching: how many samples one run of an engine holds, and whether a run waits for another to end.

    event, reference   a run starts as soon as a thread is free. Requests that are waiting then share it, as long as the
                       run is expected to take at most RUN_SECONDS: the fixed cost of a run is paid once.
    onnx, torch        one run of the model goes on at a time, which may use all cores or the whole device. What arrives
                       meanwhile is the next run; only one that is full does not wait. On a CPU a run is full when it is
                       expected to take LONG_RUN_SECONDS; on a GPU, where many samples take as long as one, only
                       `max_batch` bounds it.

Up to JOINED_BYTES of the states of sessions stay in a core's cache; on `event` and `reference`, no run has more of
them.

A request with more samples than one run holds is split, and other requests may run between its shards. Batching does
not change a bit of an answer on `event` and `reference`, which compute each sample alone, nor on any engine where a
network's sums are exact (dyadic weights and inputs). Elsewhere the libraries behind `onnx` and `torch` may sum in
another order for another batch size: an answer's last bits, and so a spike that close to the threshold, can then depend
on the other samples in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikeserve.service.catalog.cost import Cost
from spikeserve.service.settings import Settings

RUN_SECONDS = 0.01  # how long a run may take, since a small request may have to wait behind it
JOINED_BYTES = 2**20  # of states in one run; measured: 16 of 181 KB take 1.2 times as long for each as 6 of them
LONG_RUN_SECONDS = 0.05  # the same for engines whose time per sample falls as the batch grows


@dataclass(frozen=True)
class Policy:
    """How the requests for one model are batched into runs of its engine.

    A run has at most `max_batch` samples, as many as are expected to take `run_seconds`, and `joined_bytes` of states.
    If `waits`, it begins once it is full, or no other run of the model goes on.
    """

    max_batch: int
    run_seconds: float
    waits: bool = False
    joined_bytes: float = math.inf

    def max_samples(self, cost: Cost, time_steps: int) -> int:
        """Return how many samples one run may hold, at least one."""
        expected = max(cost.seconds * time_steps, 1e-9)
        return max(1, int(min(self.max_batch, self.run_seconds / expected)))

    def max_states(self, state_bytes: int) -> int:
        """Return how many sessions may share a run, at least one; each has a state of `state_bytes`."""
        return max(1, int(min(self.max_batch, self.joined_bytes / state_bytes)))


def policy_of(batches: bool, settings: Settings) -> Policy:
    """Return the policy for an engine that `batches`, or not; see `Engine`."""
    if batches:
        run_seconds = LONG_RUN_SECONDS if settings.device == "cpu" else math.inf
        return Policy(settings.max_batch, run_seconds, waits=True)
    return Policy(settings.max_batch, RUN_SECONDS, joined_bytes=JOINED_BYTES)
