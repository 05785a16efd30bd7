"""The stages of a job: first a body in a queue, then a query, which one run or several shards answer."""

from __future__ import annotations

import asyncio
import operator
from asyncio import Future
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from spikeserve.models.coding import Inputs, encode, normalise
from spikeserve.models.engines import Record, RunResult, State
from spikeserve.models.engines.base import joined
from spikeserve.models.errors import InvalidInput
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import DeadlineExceeded, late
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES
from spikeserve.service.inference.scheduling.answer import Content, Renderer, Results
from spikeserve.service.inference.scheduling.query import NOBODY, RECORDED, Codec, Query, RunOptions, Sender
from spikeserve.service.telemetry.record import AnswerRecord, Times

T = TypeVar("T")


class Answer(NamedTuple):
    """An answer's content, with its times and counts for the log, the metrics and the trace.

    `after` is the state after it, of a request of a sequence.
    """

    content: Content
    record: AnswerRecord
    after: State | None


@dataclass(frozen=True, eq=False)
class Job:
    """A request at any stage: its model, its sender, the future of its answer, and its times.

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

    def expire_at(self, deadline: float, error: DeadlineExceeded | None = None) -> None:
        """End it with DeadlineExceeded at `deadline`, on the event loop's clock, unless it is over by then."""
        timer = asyncio.get_running_loop().call_at(deadline, lambda: self.fail(error or late(self.model.name)))
        self.answer.add_done_callback(lambda _: timer.cancel())

    def work(self, function: Callable[[], T]) -> T | None:
        """Do a part of its work on any thread, unless it is over."""
        return None if self.over else function()


class Terms(NamedTuple):
    """The model and options of samples that may share a run. Samples of which rasters are returned share none."""

    model: LoadedModel
    options: RunOptions  # but for the seed
    keeps_state: bool = False  # whether they go on from states, and get those after

    @property
    def record(self) -> Record:
        """The records that the engine must make."""
        record = Record.NONE
        for each in self.options.returned & RECORDED.keys():
            record |= RECORDED[each]
        return record


@dataclass(frozen=True, eq=False)
class RawJob:
    """A job whose body waits to be decoded; `reserve` reserves bytes of the memory budget until the request ends."""

    job: Job
    codec: Codec
    body: bytes
    reserve: Callable[[int], None]

    def decode(self) -> Work:
        """Decode the body and reserve the answer's bytes; raises what the codec raises, and Overloaded."""
        began = perf_counter()
        return Work.of(self.job, self.codec.decode(self.body), began, self.reserve)


@dataclass(eq=False)
class Work:
    """A decoded job, which waits for a run, or for several where it has more samples than one holds.

    One of a session or a sequence goes on from `state`, where None is rest.
    """

    job: Job
    terms: Terms
    query: Query
    state: State | None = None
    started: int = field(default=0, init=False)  # how many of its samples are in runs that have started
    results: dict[int, Part] = field(default_factory=dict, init=False)  # by the index of each one's first sample

    @classmethod
    def of(cls, job: Job, query: Query, began: float, reserve: Callable[[int], None]) -> Work:
        """Make it of a job's query, whose decoding `began` then; `reserve` the bytes of its answer, unless few."""
        job.times.decode_seconds = perf_counter() - began
        if query.answer_bytes > SHORT_BYTES:
            reserve(query.answer_bytes)
        return cls(job, Terms(job.model, query.options._replace(seed=0), query.sequence is not None), query)

    @property
    def samples(self) -> int:
        """The number of its samples."""
        return len(self.query.samples)

    @property
    def left(self) -> int:
        """How many of its samples are in no run yet."""
        return self.samples - self.started

    def shard(self, most: int) -> Shard:
        """Return the next of its samples, at most as many."""
        return Shard(self, self.started, min(self.samples, self.started + most))

    def inputs(self, start: int, stop: int) -> Inputs:
        """Encode the samples from `start` to `stop`, and note the times of the first. Raises InvalidInput."""
        samples, options = self.query.samples, self.query.options
        spec, times = self.terms.model.spec, self.job.times
        began = perf_counter()
        own = samples if stop - start == self.samples else samples[start:stop]
        if isinstance(own, np.ndarray):
            first = 0 if self.state is None else int(self.state.steps[0])
            try:
                own = encode(own, spec, options.time_steps, options.seed, first)
            except InvalidInput:
                normalise(np.asarray(samples), spec.input)  # its sentence counts the samples from the first of all
                raise
        if not times.encode_ended:  # of the first run: the others encode after it has begun
            times.encode_began, times.encode_ended = began, perf_counter()
        return own

    def outcome(self, results: Results, own: slice, after: State | None) -> Answer | Part:
        """Render the answer for the samples `own` of a run; return a part if it is long or not complete."""
        samples = own.stop - own.start
        short = self.query.render is not None and self.query.answer_bytes <= SHORT_BYTES
        if short and samples == self.samples:
            return self.answer(results, own, after)
        return Part(results.result if samples == len(results.result.readout) else results.result[own], after)

    def add(self, start: int, ran: Part) -> Callable[[], Answer] | None:
        """Add the result of the samples from `start` on; the last one to come returns the function that renders all."""
        self.results[start] = ran
        if sum(len(each.result.readout) for each in self.results.values()) < self.samples:
            return None
        results = [each.result for _, each in sorted(self.results.items())]
        self.results = {}
        return lambda: self.answer(Results(joined(results), self.terms.model.spec), slice(0, self.samples), ran.after)

    def answer(self, results: Results, own: slice, after: State | None) -> Answer:
        """Render the answer, and record its times and counts. Raises InvalidInput for a raster that is too long."""
        result, samples, time_steps = results.result, self.samples, self.query.options.time_steps
        # Most answers are for one sample, and NumPy's sum takes six times as long as taking that element.
        total = operator.itemgetter(own.start) if samples == 1 else lambda counts: np.sum(counts[own])
        record = AnswerRecord(
            samples=samples,
            time_steps=time_steps,
            steps=samples * time_steps if result.steps_used is None else int(total(result.steps_used)),
            spikes_per_layer={name: int(total(spikes)) for name, spikes in result.spikes_per_node.items()},
            synaptic_operations=int(total(result.synaptic_operations)),
            times=self.job.times,
        )
        render = cast("Renderer", self.query.render)
        return Answer(render(results, own, after), record, after)


class Shard(NamedTuple):
    """The samples of a job from `start` to `stop`: all of them, unless that is split."""

    work: Work
    start: int
    stop: int


class Part(NamedTuple):
    """The result of some samples of a job, or of all; a job of one sample has a state after it."""

    result: RunResult
    after: State | None
