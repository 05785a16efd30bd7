"""Sequences: sessions over requests of the Open Inference Protocol, which name theirs by an id.

Triton's extension: `sequence_start` begins a sequence at rest, later requests with the same `sequence_id` go on with
its state, and `sequence_end` ends it. The requests of a sequence run one after the other, in the order in which they
came. An id belongs to the key that it came with, so that no client meets another's state. A sequence that is not heard
of for `session_idle_seconds` is dropped. It lives in one process. With several workers it belongs to the connection
that began it, all of whose requests reach the same worker, and ends with it. A client that may reach another process
asks for the state with each answer (`sequence_state`), and begins a sequence there with that.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from spikeserve.models.engines import State
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest
from spikeserve.service.inference.protocols.v2.render import TensorRenderer
from spikeserve.service.inference.scheduling.job import Work
from spikeserve.service.inference.scheduling.query import InSequence, Sender
from spikeserve.service.inference.scheduling.scheduler import Resume
from spikeserve.service.inference.sessions.table import EndReason, Place, Places
from spikeserve.service.settings import Settings

Connection: TypeAlias = tuple[str, int]  # the address and port that it comes from
Key: TypeAlias = tuple[bytes, str, int | str, Connection | None]  # whose, of which model, which, and where it lives


@dataclass(eq=False)
class OpenSequence:
    """A sequence between its requests: its state is None at rest."""

    model: LoadedModel
    place: Place
    used: float  # when it was last heard of, on the event loop's clock
    state: State | None = None
    waiting: deque[Work] = field(default_factory=deque)  # its requests in order; the first one runs
    timer: TimerHandle | None = None  # looks whether it is idle


class Sequences:
    """The open sequences of this process. Only the event loop touches them."""

    def __init__(self, places: Places, settings: Settings) -> None:
        self.places = places
        self.idle_seconds = settings.session_idle_seconds
        self.open: dict[Key, OpenSequence] = {}
        self.several_workers = settings.workers > 1

    def enter(self, decoded: Work, resume: Resume) -> None:
        """Resume a decoded job when the requests of its sequence that came before have run.

        Raises InvalidRequest for a sequence that has not begun, and Overloaded for one too many.
        """
        job, named = decoded.job, in_sequence(decoded)
        connection = (job.sender.host, job.sender.port) if self.several_workers else None
        key = (job.sender.key, job.model.name, named.id, connection)
        sequence = self.open.get(key)
        if sequence is not None:
            sequence.model = sequence.model.newest
        if named.start and (whole := job.model.spec.read_whole):
            raise InvalidRequest(f"sequence_id is given, but the model has {whole}, expected another")
        if not named.start and sequence is None:
            raise InvalidRequest(self._not_open(job.model, named))
        if sequence is not None and named.start and sequence.model is not job.model:
            self._close(key, sequence, EndReason.CLIENT)  # of a version that was replaced since; what waits there runs
            sequence = None
        if sequence is None:
            sequence = self._begin(key, job.model, job.sender)
        if job.model is not sequence.model:
            decoded = _on_version(decoded, sequence.model)
        sequence.waiting.append(decoded)
        job.answer.add_done_callback(lambda _: self._left(key, sequence, decoded, resume))
        if sequence.waiting[0] is decoded:
            _run(sequence, resume)

    def connection_lost(self, connection: Connection) -> None:
        """End the sequences that belong to a connection, which no request can reach any more."""
        for key, sequence in list(self.open.items()):
            if key[-1] == connection:
                self._close(key, sequence, EndReason.LEFT)

    def _not_open(self, model: LoadedModel, named: InSequence) -> str:
        """Word the refusal of a request for a sequence that is not open."""
        where = "on this connection" if self.several_workers else "in this process"
        sentence = f"sequence_id is {named.shown}, but no such sequence of model '{model.name}' is open {where}: "
        if self.several_workers:
            sentence += "with several workers, send all requests of a sequence on one connection, or "
        return sentence + "begin one of another id with sequence_start, at rest or from the sequence_state of an answer"

    def _begin(self, key: Key, model: LoadedModel, sender: Sender) -> OpenSequence:
        place, now = self.places.admit(model, sender), asyncio.get_running_loop().time()
        sequence = self.open[key] = OpenSequence(model, place, now)
        place.end = partial(self._close, key, sequence)
        self._watch(key, sequence)
        return sequence

    def _left(self, key: Key, sequence: OpenSequence, decoded: Work, resume: Resume) -> None:
        """Go on after a request that was answered, failed or was abandoned."""
        was_first, answer = sequence.waiting[0] is decoded, decoded.job.answer
        sequence.waiting.remove(decoded)
        answered = not answer.cancelled() and answer.exception() is None
        if was_first and answered:
            sequence.state = answer.result().after
        sequence.used = asyncio.get_running_loop().time()
        if in_sequence(decoded).end and answered and not sequence.waiting:
            self._close(key, sequence, EndReason.CLIENT)
        elif was_first and sequence.waiting:
            _run(sequence, resume)

    def _watch(self, key: Key, sequence: OpenSequence) -> None:
        """Close a sequence that nobody has asked for long."""
        loop, idle = asyncio.get_running_loop(), self.idle_seconds
        left = sequence.used + idle - loop.time()
        if left > 0 or sequence.waiting:
            sequence.timer = loop.call_later(max(left, idle / 2), self._watch, key, sequence)
        else:
            self._close(key, sequence, EndReason.IDLE)

    def _close(self, key: Key, sequence: OpenSequence, why: EndReason) -> None:
        """End a sequence; what waits there still runs."""
        if self.open.get(key) is sequence:
            del self.open[key]
            if sequence.timer is not None:
                sequence.timer.cancel()
            sequence.place.leave(why)


def in_sequence(decoded: Work) -> InSequence:
    """Return the sequence that a job belongs to; raises ValueError for one that belongs to none."""
    if decoded.query.sequence is None:
        raise ValueError("the job belongs to no sequence")
    return decoded.query.sequence


def _run(sequence: OpenSequence, resume: Resume) -> None:
    """Run the first of its requests."""
    decoded = sequence.waiting[0]
    named = in_sequence(decoded)
    if named.start:
        sequence.state = named.state
    resume(replace(decoded, state=sequence.state))


def _on_version(decoded: Work, model: LoadedModel) -> Work:
    """Return a job as it runs on the version that its sequence began with, which was replaced since."""
    query, render = decoded.query, decoded.query.render
    if not isinstance(render, TensorRenderer) or model.spec.input != decoded.job.model.spec.input:
        raise InvalidRequest(
            f"sequence_id names a sequence of version {model.version} of the model, which takes other inputs: begin "
            "another with sequence_start"
        )
    own = replace(query, render=replace(render, model=model))
    return replace(decoded, query=own, terms=decoded.terms._replace(model=model))
