"""The batcher: entries that came in one iteration of the event loop are read, run and answered together.

In a batch of sixteen, a sample costs a small network a tenth of the time that it costs alone. Code that runs for many
requests in a row also stays in the processor's caches. No entry waits for a later one: one that came alone is answered
at once, any other at the end of its iteration. An entry waits for a thread (`service.inference.scheduling.scheduler`)
if it may take long, or its body has to be decoded alone.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Sequence
from functools import partial
from time import perf_counter, thread_time
from traceback import clear_frames
from typing import TypeAlias, cast

import numpy as np

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import Stop
from spikeserve.models.errors import Stopped
from spikeserve.service.catalog.cost import ITERATION_SECONDS
from spikeserve.service.errors import late, queue_full
from spikeserve.service.inference.decoding.compression import Encoding, inflated, unpack
from spikeserve.service.inference.decoding.memory import MemoryBudget, Reservation
from spikeserve.service.inference.decoding.pieces import Iteration
from spikeserve.service.inference.scheduling.answer import Results
from spikeserve.service.inference.scheduling.entry import Entry
from spikeserve.service.inference.scheduling.finish import Finish, Member
from spikeserve.service.inference.scheduling.frames import Group, Match
from spikeserve.service.inference.scheduling.job import Answer, Job, RawJob, Work
from spikeserve.service.inference.scheduling.query import SMALL_BODY, Query
from spikeserve.service.inference.scheduling.scheduler import Scheduler
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import Times
from spikeserve.service.telemetry.tracing import Tracing

MAX_REQUESTS = 64  # answered in one iteration of the event loop
DECODE_SECONDS = 0.01  # for which bodies of frames that are not known are decoded in one; each takes up to 0.3 ms

Matched: TypeAlias = tuple[Entry, Match]


class Batcher:
    """Collects entries, and has each answered, on the event loop.

    At most `max_queue` wait for a version; others are refused at once.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        iteration: Iteration,
        settings: Settings,
        budget: MemoryBudget,
        metrics: Metrics,
        tracing: Tracing | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.iteration = iteration
        self.settings = settings
        self.budget = budget
        self.metrics = metrics
        self.finish = Finish(metrics, tracing)
        self.waiting: list[Entry] = []
        self.is_due = False  # whether the event loop will call `answer_all`

    def add(self, entry: Entry, *, alone: bool) -> None:
        """Answer an entry: at once where it came `alone` and nothing else was ready, else with others."""
        entry.arrived = perf_counter()
        if self.waiting and self._is_refused(entry):
            return
        self.waiting.append(entry)
        if alone and self.iteration.files <= 1 and not self.is_due:
            self.answer_all()
        else:
            self._be_due()

    def end(self, entry: Entry, error: Exception) -> None:
        """End an entry by an error, wherever it waits, unless it is over."""
        if entry.job is not None:
            entry.job.fail(error)
        elif not entry.is_over:
            self.finish.refuse(entry, error)

    def _be_due(self) -> None:
        if not self.is_due:
            self.is_due = True
            asyncio.get_running_loop().call_soon(self.answer_all)

    def _is_refused(self, entry: Entry) -> bool:
        """Refuse an entry if the queue of its version is full; return whether it was."""
        model, limit = entry.endpoint.model, self.settings.max_queue
        depth = self.scheduler.queue(model).depth
        if len(self.waiting) + depth < limit:
            return False
        waiting = depth + sum(each.endpoint.model is model for each in self.waiting)
        if waiting < limit:
            return False
        self.metrics.queues.shed.of(model.name).inc()
        self.finish.refuse(entry, queue_full(model.name, waiting))
        return True

    def answer_all(self) -> None:
        """Answer entries that wait, in few batches.

        Entries beyond MAX_REQUESTS, or DECODE_SECONDS, wait for the next iteration.
        """
        waiting, self.waiting = self.waiting[:MAX_REQUESTS], self.waiting[MAX_REQUESTS:]
        self.is_due, began = False, perf_counter()
        groups: dict[Group, list[Matched]] = {}
        for place, entry in enumerate(waiting):
            now = perf_counter()
            if place and now - began > DECODE_SECONDS:
                self.waiting[:0] = waiting[place:]
                break
            if entry.is_over:
                continue
            try:
                found = None if (body := _short(entry, now)) is None else entry.endpoint.find(body)
            except Exception as error:
                self.finish.refuse(entry, error)
                continue
            if isinstance(found, tuple):
                groups.setdefault(found[0].group, []).append((entry, found))
            else:
                self._queue(entry, found, now)
        if self.waiting:
            self._be_due()
        began = perf_counter()
        for group, members in groups.items():
            if perf_counter() - began > ITERATION_SECONDS:
                self._put_back(members)
                continue
            try:
                self._read(group, members, began)
            except Exception:  # each that is not answered yet is decoded and run alone, which tells its error
                for entry, _ in members:
                    if not entry.is_over and entry.job is None:
                        self._queue(entry, None, began)

    def _put_back(self, members: Sequence[Matched]) -> None:
        """Let entries wait for the next iteration."""
        self.waiting[:0] = [entry for entry, _ in members]
        self._be_due()

    def _read(self, group: Group, members: Sequence[Matched], iteration: float) -> None:
        """Read the entries of a group into rows, and run these whenever a batch is full.

        ITERATION_SECONDS after `iteration`, the rest waits for the next one.
        """
        reader, room = group.reader, group.model.room(group.options.time_steps)
        most = room or len(reader.rows)
        batch: list[Member] = []
        began, end = perf_counter(), 0
        for place, (entry, (frame, body, span)) in enumerate(members):
            samples = reader.read(body, *span, reader.rows[end:most], frame.dtype)
            if samples < 0 and batch:  # maybe there were too few rows
                self._run(group, batch, end, began)
                batch, began, end = [], perf_counter(), 0
                if began - iteration > ITERATION_SECONDS:
                    self._put_back(members[place:])
                    return
                samples = reader.read(body, *span, reader.rows, frame.dtype)
            if samples not in frame.counts or samples > most:
                self._queue(entry, None, began)
                continue
            batch.append(Member(entry, frame.render, slice(end, end + samples)))
            end += samples
        if batch:
            self._run(group, batch, end, began)

    def _run(self, group: Group, batch: Sequence[Member], end: int, began: float) -> None:
        """Run rows up to `end`, read since `began`, as one batch and answer its entries, unless they need a thread."""
        model, options = group.model, group.options
        steps = options.time_steps
        times = Times(began, encode_began=perf_counter())
        times.decode_seconds, began_thread = times.encode_began - began, thread_time()
        inputs = group.reader.inputs(end, steps, options.seed)
        times.encode_ended = times.run_began = perf_counter()
        if not model.room(steps):
            self._queue_batch(group, inputs, batch, began)
            return
        try:
            result = model.run(inputs, options.stop, stop=Stop(model.cost.most_operations(end, steps)))
        except Stopped:
            self._queue_batch(group, inputs, batch, began)
            return
        times.run_ended = perf_counter()
        if options.stop is None:
            model.cost.took(thread_time() - began_thread, int(result.synaptic_operations.sum()), end * steps)
        self.finish.answer_batch(model, steps, times, Results(result, model.spec), batch)

    def _queue_batch(self, group: Group, inputs: Inputs, batch: Sequence[Member], began: float) -> None:
        """Let the entries of a batch wait for a thread, each with a copy of its inputs, since rows are read again."""
        for entry, render, own in batch:
            samples = inputs[np.arange(own.start, own.stop)]
            self._queue(entry, Query(samples, group.options, 0, render), began)

    def _queue(self, entry: Entry, query: Query | None, began: float) -> None:
        """Let an entry, whose decoding `began` then, wait for a thread; without a query it is decoded there."""
        endpoint, hold = entry.endpoint, Reservation(self.budget)
        job = entry.job = Job.begin(endpoint.model, Times(entry.arrived), entry.sender)
        most = self.settings.request_timeout_ms
        milliseconds = min(endpoint.extras.milliseconds or most, most)
        endpoint.model.requests.count += 1
        job.answer.add_done_callback(partial(self._answered, entry, hold))
        job.expire_at(job.arrived + entry.started + milliseconds / 1000 - perf_counter())
        try:
            if query is not None:
                stage: Work | RawJob = Work.of(job, query, began, hold.reserve)
            else:
                whole = partial(unpack, encoding=Encoding.GZIP, most=self.settings.max_body_bytes, reserve=hold.reserve)
                codec = endpoint.codec(whole if endpoint.extras.packed else None)
                stage, entry.body = RawJob(job, codec, entry.body, hold.reserve), b""
            self.scheduler.admit(stage)
        except Exception as error:
            job.fail(error)

    def _answered(self, entry: Entry, hold: Reservation, answered: Future[Answer]) -> None:
        """End an entry that waited for a thread."""
        entry.endpoint.model.requests.count -= 1
        entry.job, error = None, answered.exception()  # of which each refers to the other
        if error is None:
            self.finish.answer(entry, answered.result(), hold.release)
            return
        hold.release()
        self.finish.refuse(entry, cast("Exception", error))
        clear_frames(error.__traceback__)  # its frames hold the job, which holds the error


def _short(entry: Entry, now: float) -> bytes | None:
    """Return the body, decompressed; None where it is long, or cannot be decompressed.

    Raises DeadlineExceeded if the entry's time is over.
    """
    extras = entry.endpoint.extras
    if extras.milliseconds and now - entry.started >= extras.milliseconds / 1000:
        raise late(entry.endpoint.model.name)
    if len(entry.body) > SMALL_BODY:
        return None
    return inflated(entry.body, SMALL_BODY) if extras.packed else entry.body
