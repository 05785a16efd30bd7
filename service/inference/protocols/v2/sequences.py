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
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from spikeserve.models.engines import State
from spikeserve.models.spec import Coding
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.protocols.v2.codec import TensorCodec
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest
from spikeserve.service.inference.scheduling.job import AnyJob
from spikeserve.service.inference.scheduling.query import InSequence, Sender
from spikeserve.service.inference.sessions.table import Ended, Place, Sessions

Connection: TypeAlias = tuple[str, int]  # the address and port that it comes from
Key: TypeAlias = tuple[bytes, str, int | str, Connection | None]  # whose, of which model, which, and where it lives


@dataclass(eq=False)
class OpenSequence:
    """A sequence between its requests: its state is None at rest."""

    model: LoadedModel
    place: Place
    used: float  # when it was last heard of, on the event loop's clock
    state: State | None = None
    waiting: deque[AnyJob] = field(default_factory=deque)  # its requests in order; the first one runs
    timer: TimerHandle | None = None  # looks whether it is idle


class Sequences:
    """The open sequences of this process. Only the event loop touches them."""

    def __init__(self, sessions: Sessions, resume: Callable[[AnyJob], None]) -> None:
        self.sessions = sessions
        self.resume = resume  # lets a job wait for its run
        self.open: dict[Key, OpenSequence] = {}
        self.by_connection = defaultdict[Connection, set[Key]](set)  # with several workers
        self.several_workers = sessions.settings.workers > 1
        sessions.end_sequences = self._end

    def enter(self, job: AnyJob, named: InSequence) -> None:
        """Let a decoded job run when the requests of its sequence that came before have run.

        Raises InvalidRequest for a sequence that has not begun, and Overloaded for one too many.
        """
        connection = (job.sender.host, job.sender.port) if self.several_workers else None
        key = (job.sender.key, job.model.name, named.id, connection)
        sequence = self.open.get(key)
        if named.start:
            _check(job)
        elif sequence is None:
            raise InvalidRequest(self._not_open(job.model, named))
        if sequence is not None and named.start and sequence.model is not job.model:
            self._close(key, sequence, Ended.CLIENT)  # one of a version that was replaced since; what waits there runs
            sequence = None
        if sequence is None:
            sequence = self._begin(key, job.model, job.sender)
        if job.model is not sequence.model:
            _go_over(job, sequence.model)
        job.keeps_state = True
        sequence.waiting.append(job)
        job.answer.add_done_callback(lambda _: self._left(key, sequence, job))
        if sequence.waiting[0] is job:
            self._run(sequence)

    def connection_lost(self, connection: Connection) -> None:
        """End the sequences that belong to a connection, which no request can reach any more."""
        for key in list(self.by_connection.get(connection, ())):
            self._close(key, self.open[key], Ended.LEFT)

    def _not_open(self, model: LoadedModel, named: InSequence) -> str:
        """Word the refusal of a request for a sequence that is not open."""
        where = "on this connection" if self.several_workers else "in this process"
        sentence = f"sequence_id is {named.shown}, but no such sequence of model '{model.name}' is open {where}: "
        if self.several_workers:
            sentence += "with several workers, send all requests of a sequence on one connection, or "
        return sentence + "begin one of another id with sequence_start, at rest or from the sequence_state of an answer"

    def _begin(self, key: Key, model: LoadedModel, sender: Sender) -> OpenSequence:
        place, now = self.sessions.admit(model, sender), asyncio.get_running_loop().time()
        sequence = self.open[key] = OpenSequence(model, place, now)
        if (connection := key[-1]) is not None:
            self.by_connection[connection].add(key)
        self._watch(key, sequence)
        return sequence

    def _run(self, sequence: OpenSequence) -> None:
        """Run the first of its requests."""
        job = sequence.waiting[0]
        named = job.query.sequence if job.query is not None else None
        if named is not None and named.start:
            sequence.state = named.state
        job.state = sequence.state
        self.resume(job)

    def _left(self, key: Key, sequence: OpenSequence, job: AnyJob) -> None:
        """Go on after a request that was answered, failed or was abandoned."""
        was_first = bool(sequence.waiting) and sequence.waiting[0] is job
        if job in sequence.waiting:
            sequence.waiting.remove(job)
        answered = not job.answer.cancelled() and job.answer.exception() is None
        if was_first and answered:
            sequence.state = job.after
        sequence.used = asyncio.get_running_loop().time()
        named = job.query.sequence if job.query is not None else None
        if named is not None and named.end and answered and not sequence.waiting:
            self._close(key, sequence, Ended.CLIENT)
        elif was_first and sequence.waiting:
            self._run(sequence)

    def _watch(self, key: Key, sequence: OpenSequence) -> None:
        """Close a sequence that nobody has asked for long."""
        loop, idle = asyncio.get_running_loop(), self.sessions.settings.session_idle_seconds
        left = sequence.used + idle - loop.time()
        if left > 0 or sequence.waiting:
            sequence.timer = loop.call_later(max(left, idle / 2), self._watch, key, sequence)
        else:
            self._close(key, sequence, Ended.IDLE)

    def _end(self, why: Ended, name: str | None) -> None:
        """End the sequences of a model, or of all; what waits there still runs."""
        for key, sequence in list(self.open.items()):
            if name in (None, sequence.model.name):
                self._close(key, sequence, why)

    def _close(self, key: Key, sequence: OpenSequence, why: Ended) -> None:
        if self.open.get(key) is not sequence:
            return
        del self.open[key]
        if (connection := key[-1]) is not None:
            self.by_connection[connection].discard(key)
            if not self.by_connection[connection]:
                del self.by_connection[connection]
        if sequence.timer is not None:
            sequence.timer.cancel()
        sequence.place.leave(why)


def _check(job: AnyJob) -> None:
    """Raise InvalidRequest, or InvalidInput, where a model or a request cannot be a sequence's."""
    spec = job.model.network.spec
    if spec.coding is Coding.LATENCY:
        raise InvalidRequest(
            f"sequence_id is given, but the model's coding is '{spec.coding}', whose spikes lie in a run of a known "
            "length, expected another"
        )


def _go_over(job: AnyJob, model: LoadedModel) -> None:
    """Have a job run on the version that its sequence began with, which was replaced since."""
    if not isinstance(job.codec, TensorCodec) or model.spec.input != job.model.spec.input:
        raise InvalidRequest(
            f"sequence_id names a sequence of version {model.version} of the model, which takes other inputs: begin "
            "another with sequence_start"
        )
    job.codec, job.model = replace(job.codec, model=model), model
