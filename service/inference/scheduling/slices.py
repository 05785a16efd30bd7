"""Slices: the next steps of a session, which goes on from its state. The scheduler runs those of many as one batch."""

from __future__ import annotations

from asyncio import Future
from time import perf_counter
from typing import Any, NamedTuple

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import RunResult, State
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.scheduling.job import Job
from spikeserve.service.telemetry.record import Times


class Sliced(NamedTuple):
    """What a slice gives: its result, and the state after its last step."""

    result: RunResult
    state: State


class Slice(Job[Sliced]):
    """One sample's next steps, from `state` on; None is rest.

    No queue's depth counts it: there are at most as many as sessions, which are limited.
    """

    def __init__(
        self, model: LoadedModel, inputs: Inputs, state: State | None, answer: Future[Any], now: float
    ) -> None:
        super().__init__(model, None, answer, b"", now, Times(perf_counter()), lambda _: None)
        self.inputs = inputs
        self.keeps_state = True
        self.state = state

    def complete(self, start: int, result: RunResult) -> Any:  # noqa: ARG002  (there is one sample)
        """Return the result with the state after it."""
        return None if self.after is None else Sliced(result, self.after)

    @property
    def samples(self) -> int:
        """One."""
        return 1

    @property
    def time_steps(self) -> int:
        """The number of its steps."""
        return 0 if self.inputs is None else self.inputs.time_steps

    @property
    def needs_own_run(self) -> bool:
        """It shares runs: only networks have sessions, and each sample of those is on its own."""
        return False
