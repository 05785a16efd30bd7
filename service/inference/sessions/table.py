"""All open sessions: how many there may be, how much memory they take, and how they end.

A session ends when its client says so or leaves, when it is silent for too long, when its model is unloaded, and when
the server drains. Unless the client ended it, it is given the state, to go on elsewhere. A version that is replaced
goes on with the sessions that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import Overloaded
from spikeserve.service.inference.memory import MemoryBudget, Reservation
from spikeserve.service.inference.scheduler import Scheduler
from spikeserve.service.inference.sessions.options import StreamOptions
from spikeserve.service.inference.sessions.session import Session
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics.sessions import SessionMetrics

UNCOUNTED_BYTES = 2**16  # of events that wait; a session that holds more counts in the memory budget


class Ended(StrEnum):
    """Why a session ended."""

    CLIENT = "client"
    LEFT = "left"
    IDLE = "idle"
    ERROR = "error"
    UNLOADED = "unloaded"
    DRAINING = "draining"


WHY = {
    Ended.IDLE: "nothing was sent for {seconds:g} seconds",
    Ended.UNLOADED: "the model was unloaded",
    Ended.DRAINING: "the server is shutting down",
}


class OpenSession:
    """An open session with the task that serves it."""

    def __init__(self, session: Session, task: asyncio.Task[Any] | None, budget: MemoryBudget) -> None:
        self.session = session
        self.task = task
        self.ended: Ended | None = None
        self.budget = budget
        self.pending = Reservation(budget)
        self.reserved = 0

    def reserve(self, size: int) -> None:
        """Hold `size` bytes of the memory budget for events that wait; few are not counted. Raises Overloaded."""
        if size > max(self.reserved, UNCOUNTED_BYTES):
            self.pending.reserve(size - self.reserved)
            self.reserved = size
        elif self.reserved and size <= UNCOUNTED_BYTES:
            self.pending.release()
            self.pending, self.reserved = Reservation(self.budget), 0

    def end(self, why: Ended) -> None:
        """End it, unless it is ending: its task hands the state back."""
        if self.ended is None:
            self.ended = why
            if self.task is not None:
                self.task.cancel()


class Sessions:
    """The open sessions of this process. Only the event loop touches them."""

    def __init__(self, scheduler: Scheduler, budget: MemoryBudget, metrics: SessionMetrics, settings: Settings) -> None:
        self.scheduler = scheduler
        self.budget = budget
        self.metrics = metrics
        self.settings = settings
        self.open: set[OpenSession] = set()
        self.on_end: Callable[[str], None] = lambda _: None  # is told of a model whose sessions end
        self.count = 0  # of sessions, those of sequences included
        self.state_bytes = 0
        metrics.state_bytes.set_function(lambda: self.state_bytes)

    @contextmanager
    def opened(self, model: LoadedModel, options: StreamOptions) -> Iterator[OpenSession]:
        """Open a session for the current task, and close it at the end. Raises InvalidInput and Overloaded."""
        session = Session(model, options, self.scheduler)
        self.admit(model)
        opened = OpenSession(session, asyncio.current_task(), self.budget)
        self.open.add(opened)
        try:
            yield opened
        except BaseException:
            opened.ended = opened.ended or Ended.LEFT
            raise
        finally:
            opened.pending.release()
            self.open.discard(opened)
            self.release(model, opened.ended or Ended.CLIENT)

    def admit(self, model: LoadedModel) -> None:
        """Count one more session of a model. Raises Overloaded, and InvalidInput for a model that has no state."""
        self._require_room(model, model.state_bytes)
        self._count(model, 1)

    def release(self, model: LoadedModel, why: Ended) -> None:
        """Count one session less."""
        self._count(model, -1)
        self.metrics.count_end(model.name, why)

    def end_all(self, why: Ended = Ended.DRAINING) -> None:
        """End every session: the server drains."""
        for each in list(self.open):
            each.end(why)

    def end_model(self, name: str) -> None:
        """End the sessions of a model that is unloaded."""
        for each in list(self.open):
            if each.session.model.name == name:
                each.end(Ended.UNLOADED)
        self.on_end(name)

    def why(self, ended: Ended) -> str:
        """Return a reason in words."""
        return WHY[ended].format(seconds=self.settings.session_idle_seconds)

    def _require_room(self, model: LoadedModel, size: int) -> None:
        limits = self.settings
        if self.count >= limits.max_sessions:
            self.metrics.count_refused(model.name)
            raise Overloaded(f"{self.count} sessions are open, expected fewer than max_sessions")
        if self.state_bytes + size > limits.max_session_bytes:
            self.metrics.count_refused(model.name)
            raise Overloaded(
                f"the states of all sessions would take {self.state_bytes + size} bytes with this one, expected at "
                f"most {limits.max_session_bytes}"
            )

    def _count(self, model: LoadedModel, by: int) -> None:
        self.count += by
        self.state_bytes += by * model.state_bytes
        model.requests.count += by
        self.metrics.opened(model.name, by)
