"""Sequences: sessions over requests of the Open Inference Protocol, which name theirs by an id.

Triton's extension: `sequence_start` begins a sequence at rest, later requests with the same `sequence_id` go on with
its state, and `sequence_end` ends it. The requests of a sequence run one after the other, in the order in which they
came. An id belongs to the key that it came with, so that no client meets another's state. A sequence that is not heard
of for `session_idle_seconds` is dropped. It lives in one process: several workers share none. A client that may reach
another one asks for the state with each answer (`sequence_state`), and begins a sequence there with that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from spikeserve.models.engines import State
from spikeserve.models.spec import Coding
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.job import AnyJob
from spikeserve.service.inference.query import InSequence
from spikeserve.service.inference.sessions.table import Ended, Sessions
from spikeserve.service.inference.v2.codec import TensorCodec
from spikeserve.service.inference.v2.errors import InvalidRequest

Key: TypeAlias = tuple[bytes, str, int | str]  # of whom, of which model, and which


@dataclass(eq=False)
class OpenSequence:
    """A sequence between its requests: its state is None at rest."""

    model: LoadedModel
    state: State | None = None
    waiting: deque[AnyJob] = field(default_factory=deque)  # its requests in order; the first one runs
    used: float = 0.0  # when it was last heard of, on the event loop's clock


class Sequences:
    """The open sequences of this process. Only the event loop touches them."""

    def __init__(self, sessions: Sessions, resume: Callable[[AnyJob], None]) -> None:
        self.sessions = sessions
        self.resume = resume  # lets a job wait for its run
        self.open: dict[Key, OpenSequence] = {}
        sessions.on_end = self._end_model

    def enter(self, job: AnyJob, named: InSequence) -> None:
        """Let a decoded job run when the requests of its sequence that came before have run.

        Raises InvalidRequest for a sequence that has not begun, and Overloaded for one too many.
        """
        key = (job.sender.key, job.model.name, named.id)
        sequence = self.open.get(key)
        if named.start:
            _check(job)
        elif sequence is None:
            raise InvalidRequest(
                f"sequence_id is {named.shown}, but no such sequence of model '{job.model.name}' is open in this "
                "process: begin one of another id with sequence_start, at rest or from the sequence_state of an answer"
            )
        if sequence is not None and named.start and sequence.model is not job.model:
            self._close(key, sequence, Ended.CLIENT)  # one of a version that was replaced since; what waits there runs
            sequence = None
        if sequence is None:
            sequence = self._begin(key, job.model)
        if job.model is not sequence.model:
            _go_over(job, sequence.model)
        job.keeps_state = True
        sequence.waiting.append(job)
        job.answer.add_done_callback(lambda _: self._left(key, sequence, job))
        if sequence.waiting[0] is job:
            self._run(sequence)

    def _begin(self, key: Key, model: LoadedModel) -> OpenSequence:
        self.sessions.admit(model)
        sequence = self.open[key] = OpenSequence(model)
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
        sequence.used = sequence.used or loop.time()
        left = sequence.used + idle - loop.time()
        if self.open.get(key) is not sequence:
            return
        if left > 0 or sequence.waiting:
            loop.call_later(max(left, idle / 2), self._watch, key, sequence)
        else:
            self._close(key, sequence, Ended.IDLE)

    def _end_model(self, name: str) -> None:
        for key, sequence in list(self.open.items()):
            if sequence.model.name == name:
                self._close(key, sequence, Ended.UNLOADED)

    def _close(self, key: Key, sequence: OpenSequence, why: Ended) -> None:
        if self.open.get(key) is sequence:
            del self.open[key]
            self.sessions.release(sequence.model, why)


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
