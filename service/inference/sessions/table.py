"""All open sessions: how many there may be, how much memory they take, and how they end.

A session ends when its client says so or leaves, when it is silent for too long, when its model is unloaded, and when
the server drains. Unless the client ended it, it is given the state, to go on elsewhere. A version that is replaced
goes on with the sessions that it has. One client may take a share of all of them: an API key or, where no keys are set,
an address, of IPv6 a network of 64 bits.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address, ip_network
from typing import Any

from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import Overloaded
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from spikeserve.service.inference.scheduling.query import Sender
from spikeserve.service.inference.scheduling.scheduler import Scheduler
from spikeserve.service.inference.sessions.batches import Batches
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.inference.sessions.session import Session
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics

UNCOUNTED_BYTES = 2**16  # of events that wait; a session that holds more counts in the memory budget


class EndReason(StrEnum):
    """Why a session ended."""

    CLIENT = "client"
    LEFT = "left"
    IDLE = "idle"
    ERROR = "error"
    UNLOADED = "unloaded"
    DRAINING = "draining"


WHY = {
    EndReason.IDLE: "nothing was sent for {seconds:g} seconds",
    EndReason.UNLOADED: "the model was unloaded",
    EndReason.DRAINING: "the server is shutting down",
}


@dataclass
class Usage:
    """How many sessions are open, and the bytes of their states."""

    count: int = 0
    state_bytes: int = 0


class Place:
    """A place among the sessions, of one model and one client, until it is left."""

    def __init__(self, places: Places, model: LoadedModel, client: bytes | str) -> None:
        self.places = places
        self.model = model
        self.client = client
        self.end: Callable[[EndReason], None] = self.leave  # ends what has it
        places.open.add(self)
        places.count(self, 1)

    def leave(self, why: EndReason) -> None:
        """Give it back, once."""
        if self in self.places.open:
            self.places.open.discard(self)
            self.places.count(self, -1)
            self.places.metrics.sessions.ended.of(self.model.name, why).inc()


class Places:
    """How many sessions may be open, of all clients and of each, and how much memory they may take.

    Sequences take places too. Only the event loop touches them.
    """

    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self.metrics = metrics
        self.settings = settings
        self.open: set[Place] = set()
        self.usage = Usage()
        self.by_client = defaultdict[bytes | str, Usage](Usage)
        self.has_keys = settings.api_keys is not None
        metrics.state_bytes.function = lambda: self.usage.state_bytes

    def admit(self, model: LoadedModel, sender: Sender) -> Place:
        """Return a place for one more session of a model. Raises Overloaded, and InvalidInput where it has no state."""
        client = self._client(sender)
        try:
            self._require_room(model.state_bytes, client)
        except Overloaded:
            self.metrics.sessions.refused.of(model.name).inc()
            raise
        return Place(self, model, client)

    def end_all(self, why: EndReason = EndReason.DRAINING, name: str | None = None) -> None:
        """End every session and sequence, or those of one model."""
        for place in list(self.open):
            if name in (None, place.model.name):
                place.end(why)

    def count(self, place: Place, by: int) -> None:
        """Count a place that is taken, or with -1 left."""
        for usage in (self.usage, self.by_client[place.client]):
            usage.count += by
            usage.state_bytes += by * place.model.state_bytes
        if not self.by_client[place.client].count:
            del self.by_client[place.client]
        place.model.requests.count += by
        self.metrics.sessions.open[place.model.name] += by

    def _client(self, sender: Sender) -> bytes | str:
        """Return the client that a session counts for: its key or address; of IPv6 the /64."""
        if self.has_keys:
            return sender.key
        try:
            address = IPv6Address(sender.host)
        except ValueError:
            return sender.host
        return str(address.ipv4_mapped or ip_network((address.packed, 64), strict=False))

    def _require_room(self, size: int, client: bytes | str) -> None:
        """Raise Overloaded where a session with a state of `size` bytes is one too many, of all or of its client's."""
        limits, share = self.settings, self.settings.max_client_share
        own, who = self.by_client.get(client, Usage()), "this key" if self.has_keys else "this address"
        if self.usage.count >= limits.max_sessions:
            raise Overloaded(f"{self.usage.count} sessions are open, expected fewer than max_sessions")
        if own.count >= (most := max(1, int(share * limits.max_sessions))):
            raise Overloaded(
                f"{own.count} sessions of {who} are open, expected fewer than {most}: a client may take a share of "
                f"{share:g} of max_sessions (max_client_share)"
            )
        if (total := self.usage.state_bytes + size) > limits.session_bytes:
            raise Overloaded(
                f"the states of all sessions would take {total} bytes with this one, expected at most "
                f"{limits.session_bytes}, half of max_pending_bytes"
            )
        if own.count and own.state_bytes + size > (most := int(share * limits.session_bytes)):
            raise Overloaded(
                f"the states of the sessions of {who} would take {own.state_bytes + size} bytes with this one, "
                f"expected at most {most}: a client may take a share of {share:g} of half of max_pending_bytes "
                "(max_client_share)"
            )


class OpenSession:
    """An open session with the task that serves it."""

    def __init__(self, session: Session, task: asyncio.Task[Any] | None, budget: MemoryBudget) -> None:
        self.session = session
        self.task = task
        self.ended: EndReason | None = None
        self.pending = Reservation(budget)

    def reserve(self, size: int) -> None:
        """Hold `size` bytes of the memory budget for events that wait; few are not counted. Raises Overloaded."""
        self.pending.resize(size, UNCOUNTED_BYTES)

    def end(self, why: EndReason) -> None:
        """End it, unless it is ending: its task hands the state back."""
        if self.ended is None:
            self.ended = why
            if self.task is not None:
                self.task.cancel()


class Sessions:
    """The open sessions of this process. Only the event loop touches them."""

    def __init__(self, scheduler: Scheduler, places: Places, budget: MemoryBudget, settings: Settings) -> None:
        self.batches = Batches(scheduler)
        self.places = places
        self.budget = budget
        self.settings = settings

    @contextmanager
    def opened(
        self, model: LoadedModel, options: StreamOptions, sender: Sender, labels: dict[str, str | int]
    ) -> Iterator[OpenSession]:
        """Open a session for the current task, and close it at the end, of which `labels` of a request then tell.

        Raises InvalidInput and Overloaded.
        """
        session = Session(model, options, self.batches)
        place = self.places.admit(model, sender)
        opened = OpenSession(session, asyncio.current_task(), self.budget)
        place.end = opened.end
        try:
            with opened.pending:
                yield opened
        except BaseException:
            opened.ended = opened.ended or EndReason.LEFT
            raise
        finally:
            ended = opened.ended or EndReason.CLIENT
            place.leave(ended)
            labels.update({"windows": session.at.number, **session.windows.counts, "ended": ended.value})
