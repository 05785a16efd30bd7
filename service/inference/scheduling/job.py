"""The stages of a job: queued as a body, decoded to a query, and running in shards where one run cannot hold it.

Beside requests, the scheduler runs slices: the next steps of a session, which goes on from its state.
"""

from __future__ import annotations

import asyncio
import operator
from asyncio import Future
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np

from spikeserve.models.coding import Inputs, encode
from spikeserve.models.engines import Record, RunResult, State
from spikeserve.models.engines.anytime import StopRule
from spikeserve.models.engines.base import joined
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import DeadlineExceeded
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES
from spikeserve.service.inference.scheduling.query import NOBODY, RECORDED, Codec, Query, Returned, Sender
from spikeserve.service.telemetry.record import AnswerRecord, Times

Content = TypeVar("Content")
T = TypeVar("T")


class Answer(NamedTuple, Generic[Content]):
    """An answer's content, with its times and counts for the log, the metrics and the trace.

    `after` is the state after it, of a request of a sequence.
    """

    content: Content
    record: AnswerRecord
    after: State | None


class Sliced(NamedTuple):
    """What a slice gives: its result, and the state after its last step."""

    result: RunResult
    state: State


@dataclass(frozen=True, eq=False)
class Job:
    """What is known of a request at every stage: its model, who waits for the answer, and since when.

    `holds` gives back what is held for it, in queues, bytes and runs, once it is over.
    """

    model: LoadedModel
    answer: Future[Any]
    times: Times
    arrived: float  # on the event loop's clock
    sender: Sender = NOBODY
    holds: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def begin(cls, model: LoadedModel, times: Times, sender: Sender = NOBODY) -> Job:
        """Begin a job that arrives now, on the event loop."""
        loop = asyncio.get_running_loop()
        return cls(model, loop.create_future(), times, loop.time(), sender)

    @property
    def over(self) -> bool:
        """Whether it has been answered or abandoned."""
        return self.answer.done()

    def fail(self, error: Exception) -> None:
        """End it with an error, unless it is over."""
        if not self.over:
            self.answer.set_exception(error)

    def expire_at(self, deadline: float) -> None:
        """End it with DeadlineExceeded at `deadline`, on the event loop's clock, unless it is over by then."""
        timer = asyncio.get_running_loop().call_at(deadline, lambda: self.fail(DeadlineExceeded()))
        self.answer.add_done_callback(lambda _: timer.cancel())

    def work(self, function: Callable[[], T]) -> T | None:
        """Do a part of its work on any thread, unless it is over."""
        return None if self.over else function()


class Terms(NamedTuple):
    """What samples have in common that may share a run; those of which more is returned than counts share none."""

    model: LoadedModel
    time_steps: int
    stop: StopRule | None = None  # the rule by which samples end early, if any
    keeps_state: bool = False  # whether they go on from states, and get those after
    returned: frozenset[Returned] = frozenset()

    @property
    def shares_runs(self) -> bool:
        """Whether samples of several jobs may share a run."""
        return self.model.shares_runs and not self.returned

    @property
    def reports(self) -> bool:
        """Whether the answer has a report of each sample."""
        return Returned.REPORT in self.returned

    @property
    def record(self) -> Record:
        """What the engine must record."""
        record = Record.NONE
        for each in self.returned & RECORDED.keys():
            record |= RECORDED[each]
        return record


@dataclass(frozen=True, eq=False)
class Queued(Generic[Content]):
    """A job whose body waits to be decoded; `reserve` reserves bytes of the memory budget until the request ends."""

    job: Job
    codec: Codec[Any, Content]
    body: bytes
    reserve: Callable[[int], None]

    def decode(self) -> Decoded[Content]:
        """Decode the body and reserve the answer's bytes; raises what the codec raises, and Overloaded."""
        began = perf_counter()
        query = self.codec.decode(self.body)
        self.job.times.decode_seconds = perf_counter() - began
        reserve_answer(self.reserve, query.answer_bytes)
        return Decoded.of(self.job, self.codec, query)


@dataclass(frozen=True, eq=False)
class Decoded(Generic[Content]):
    """A decoded job, which waits for a run; one of a sequence goes on from `state`, where None is rest."""

    job: Job
    terms: Terms
    codec: Codec[Any, Content]
    query: Query
    state: State | None = None

    @classmethod
    def of(cls, job: Job, codec: Codec[Any, Content], query: Query) -> Decoded[Content]:
        """Make it of a job's query."""
        in_sequence = query.sequence is not None
        return cls(job, Terms(job.model, query.time_steps, query.stop, in_sequence, query.returned), codec, query)

    @property
    def samples(self) -> int:
        """The number of its samples."""
        return len(self.query.samples)

    @property
    def answer_size(self) -> int:
        """The most bytes that its answer can take."""
        return self.query.answer_bytes

    def inputs(self) -> Inputs:
        """Encode all samples, and record when that began and ended. Raises InvalidInput."""
        samples, times = self.query.samples, self.job.times
        times.encode_began = perf_counter()
        inputs: Inputs
        if isinstance(samples, np.ndarray):
            first = 0 if self.state is None else int(self.state.steps[0])
            inputs = encode(samples, self.terms.model.spec, self.query.time_steps, self.query.seed, first)
        else:
            inputs = samples
        times.encode_ended = perf_counter()
        return inputs

    def shard(self, _: int) -> Shard:
        """Return all of it: one run holds it."""
        return Shard(self, 0, self.samples)

    def outcome(self, _: int, result: RunResult, after: State | None) -> Answered | Unrendered:
        """Render the answer, unless it is long: that is done elsewhere."""
        if self.answer_size > SHORT_BYTES:
            return Unrendered(self, lambda: self.render(result, after))
        return Answered(self.job, self.render(result, after))

    def render(self, result: RunResult, after: State | None = None) -> Answer[Content]:
        """Render the answer, and record its times and counts. Raises InvalidInput for a raster that is too long."""
        operations, samples, used = result.synaptic_operations, self.samples, result.steps_used
        # Most batches hold one sample, and NumPy's sum takes six times as long as taking the first element.
        total = operator.itemgetter(0) if samples == 1 else np.sum
        record = AnswerRecord(
            samples=samples,
            time_steps=self.query.time_steps,
            steps=samples * self.query.time_steps if used is None else int(used.sum()),
            spikes_per_layer={name: int(total(spikes)) for name, spikes in result.spikes_per_node.items()},
            synaptic_operations=None if operations is None else int(total(operations)),
            times=self.job.times,
        )
        return Answer(self.codec.render(self.query, result, after), record, after)


class Running(Generic[Content]):
    """A job with more samples than one run holds, once they are encoded: it runs in shards, maybe side by side."""

    def __init__(self, decoded: Decoded[Content], inputs: Inputs) -> None:
        self.decoded = decoded
        self.encoded = inputs
        self.job, self.terms = decoded.job, decoded.terms
        self.samples, self.answer_size, self.state = decoded.samples, decoded.answer_size, decoded.state
        self.started = 0  # how many of its samples are in runs that have started
        self.results: dict[int, RunResult] = {}  # by the index of the first sample of each

    def inputs(self) -> Inputs:
        """Return all its samples as a run takes them."""
        return self.encoded

    def shard(self, most: int) -> Shard:
        """Return the next of its samples, at most as many."""
        return Shard(self, self.started, min(self.samples, self.started + most))

    def outcome(self, start: int, result: RunResult, _: State | None) -> Part:
        """Return the result of the samples from `start` on."""
        return Part(self, start, result)

    def add(self, part: Part) -> Unrendered | None:
        """Add a result, on the event loop; return the whole once all are there, to be rendered elsewhere."""
        self.results[part.start] = part.result
        if sum(len(each.readout) for each in self.results.values()) < self.samples:
            return None
        results = [each for _, each in sorted(self.results.items())]
        self.results = {}
        return Unrendered(self.decoded, lambda: self.decoded.render(joined(results)))


@dataclass(frozen=True, eq=False)
class Slice:
    """A session's next steps, from `state` on; None is rest.

    No queue's depth counts it: there are at most as many as sessions, which are limited.
    """

    job: Job
    terms: Terms
    steps: Inputs
    state: State | None
    samples: int = 1
    answer_size: int = 0

    def inputs(self) -> Inputs:
        """Return its steps."""
        return self.steps

    def shard(self, _: int) -> Shard:
        """Return all of it."""
        return Shard(self, 0, 1)

    def outcome(self, _: int, result: RunResult, after: State | None) -> Answered:
        """Return the result with the state after it."""
        return Answered(self.job, None if after is None else Sliced(result, after))


AnyWork: TypeAlias = Decoded[Any] | Running[Any] | Slice  # what waits for a run


class Shard(NamedTuple):
    """The samples of some work from `start` to `stop`: all of them, unless that is split."""

    work: AnyWork
    start: int
    stop: int

    def inputs(self) -> Inputs:
        """Return the inputs of these samples. Raises InvalidInput."""
        whole = self.work.inputs()
        return whole if self.start == 0 and self.stop == whole.batch else whole[self.start : self.stop]


class Answered(NamedTuple):
    """A job's answer."""

    job: Job
    answer: object


class Unrendered(NamedTuple):
    """A job that has run, and what renders its answer."""

    decoded: Decoded[Any]
    render: Callable[[], Answer[Any]]


class Part(NamedTuple):
    """The result of a shard of a job that runs in several."""

    running: Running[Any]
    start: int
    result: RunResult


class Failed(NamedTuple):
    """A job that cannot be answered."""

    job: Job
    error: Exception


Outcome: TypeAlias = Answered | Unrendered | Part | Failed


def reserve_answer(reserve: Callable[[int], None], size: int) -> None:
    """Reserve the bytes of an answer in the memory budget, unless they are few. Raises Overloaded."""
    if size > SHORT_BYTES:
        reserve(size)
