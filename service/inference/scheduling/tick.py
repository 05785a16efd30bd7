"""The tick: ordinary requests that came in one iteration of the event loop are read, run and answered together.

A batch of sixteen costs a small network a tenth for each sample of what one alone costs, and code that runs for many
requests in a row stays in the processor's caches. Nothing waits for what is not there yet: a request that came alone is
answered at once, and any other at the end of its iteration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from time import perf_counter, thread_time
from typing import Protocol, TypeAlias

from spikeserve.models.engines import Stop
from spikeserve.models.errors import InvalidInput, Stopped
from spikeserve.service.catalog.cost import ITERATION_SECONDS
from spikeserve.service.errors import ServiceError, queue_full
from spikeserve.service.inference.decoding.compression import inflated
from spikeserve.service.inference.decoding.pieces import Iteration
from spikeserve.service.inference.scheduling.answer import Content, Renderer, Results
from spikeserve.service.inference.scheduling.frames import Endpoint, Group, Match
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.telemetry.access import METHOD, STATUS, AccessLog
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import (
    TIMING,
    AnswerRecord,
    BatchedAnswer,
    BatchRecord,
    RequestRecord,
    Times,
    Trace,
)
from spikeserve.service.telemetry.tracing import Tracing

MAX_REQUESTS = 64  # that are answered in one iteration of the event loop
DECODE_SECONDS = 0.01  # for which bodies of frames that are not known are decoded in one; each takes up to 0.3 ms


class Ordinary(Protocol):
    """An ordinary request whose body has arrived."""

    endpoint: Endpoint
    request_id: bytes
    body: bytes
    withdrawn: bool  # whether it was sent the full way meanwhile, since its client has left
    started: float  # when its headers were complete, by perf_counter
    trace: Trace | None

    def answer(self, content: Content) -> None:
        """Send the answer."""
        ...

    def decline(self) -> None:
        """Send it the full way instead."""
        ...

    def refuse(self, error: ServiceError | InvalidInput, status: HTTPStatus) -> None:
        """Send an error, which was logged and counted."""
        ...


Member: TypeAlias = tuple[Ordinary, Match]


Entry: TypeAlias = tuple[Ordinary, Renderer, slice]  # a request, and which rows of a batch are its samples


class Tick:
    """Collects ordinary requests, and answers them. Only the event loop uses it.

    At most `limit` requests wait for a version; others are refused at once, as those are that find its queue full.
    """

    def __init__(self, metrics: Metrics, iteration: Iteration, limit: int, tracing: Tracing | None = None) -> None:
        self.metrics = metrics
        self.iteration = iteration
        self.limit = limit
        self.tracing = tracing
        self.access = AccessLog(metrics)
        self.waiting: list[Ordinary] = []
        self.is_due = False  # whether the event loop will call `answer_all`

    def add(self, request: Ordinary, *, alone: bool) -> None:
        """Answer a request: at once where it came `alone` and nothing else was ready, else with others."""
        if len(self.waiting) >= self.limit and self._is_refused(request):
            return
        self.waiting.append(request)
        if alone and self.iteration.files <= 1 and not self.is_due:
            self.answer_all()
        else:
            self._be_due()

    def _be_due(self) -> None:
        if not self.is_due:
            self.is_due = True
            asyncio.get_running_loop().call_soon(self.answer_all)

    def _is_refused(self, request: Ordinary) -> bool:
        """Refuse a request if as many as may wait for its version, and return whether that is so."""
        model = request.endpoint.model
        waiting = sum(each.endpoint.model is model for each in self.waiting)
        if waiting < self.limit:
            return False
        self.metrics.queues.shed.of(model.name).inc()
        self._refuse(request, queue_full(model.name, waiting))
        return True

    def _refuse(self, request: Ordinary, error: ServiceError | InvalidInput) -> None:
        """Answer a request with an error, and log and count it."""
        endpoint, trace, started = request.endpoint, request.trace, request.started
        status = endpoint.invalid if isinstance(error, InvalidInput) else error.status
        traced: dict[str, str | int] = {"trace_id": trace.id} if trace else {}
        record = RequestRecord(request.request_id, {**traced, **endpoint.labels})
        request.refuse(error, status)
        self.access.finish(record, METHOD, endpoint.route, status, perf_counter() - started)
        if self.tracing and trace and trace.sampled:
            self.tracing.begin(trace, METHOD, started).end(METHOD, endpoint.route, status, record)

    def answer_all(self) -> None:
        """Answer requests that wait, in few batches.

        What exceeds MAX_REQUESTS, or DECODE_SECONDS, waits for the next iteration.
        """
        waiting, self.waiting = self.waiting[:MAX_REQUESTS], self.waiting[MAX_REQUESTS:]
        self.is_due, began = False, perf_counter()
        groups: dict[Group, list[Member]] = {}
        for place, request in enumerate(waiting):
            if place and perf_counter() - began > DECODE_SECONDS:
                self.waiting[:0] = waiting[place:]
                break
            if request.withdrawn:
                continue
            endpoint, match = request.endpoint, None
            if not endpoint.model.cost.room(endpoint.model.spec.time_steps):
                request.decline()
                continue
            try:
                body = inflated(request.body, SMALL_BODY) if endpoint.extras.packed else request.body
                match = None if body is None else endpoint.find(body)
            except (ServiceError, InvalidInput) as error:
                self._refuse(request, error)
                continue
            except Exception:  # noqa: S110  (the full way logs what is wrong)
                pass
            if match is None:
                request.decline()
            else:
                groups.setdefault(match[0].group, []).append((request, match))
        if self.waiting:
            self._be_due()
        began = perf_counter()
        for group, members in groups.items():
            if perf_counter() - began > ITERATION_SECONDS:
                self._put_back(members)
                continue
            try:
                self._read(group, members, began)
            except Exception:  # the full way answers those that are not answered yet, and logs what is wrong
                for request, *_ in members:
                    request.decline()

    def _put_back(self, members: Sequence[Member]) -> None:
        """Let requests wait for the next iteration."""
        self.waiting[:0] = [request for request, _ in members]
        self._be_due()

    def _read(self, group: Group, members: Sequence[Member], iteration: float) -> None:
        """Read the requests of a group into rows, and run these whenever a batch is full.

        What is left ITERATION_SECONDS after `iteration` waits for the next one.
        """
        reader, most = group.reader, group.model.cost.room(group.options.time_steps)
        batch: list[Entry] = []
        began, end = perf_counter(), 0
        for place, (request, (frame, body, span)) in enumerate(members):
            samples = reader.read(body, *span, reader.rows[end:most], frame.dtype)
            if samples < 0 and batch:  # maybe there were too few rows
                self._run(group, batch, end, began)
                batch, began, end = [], perf_counter(), 0
                if began - iteration > ITERATION_SECONDS:
                    self._put_back(members[place:])
                    return
                samples = reader.read(body, *span, reader.rows, frame.dtype)
            if samples not in frame.counts or samples > most:
                request.decline()
                continue
            batch.append((request, frame.render, slice(end, end + samples)))
            end += samples
        if batch:
            self._run(group, batch, end, began)

    def _run(self, group: Group, batch: Sequence[Entry], end: int, began: float) -> None:
        """Run rows up to `end`, read since `began`, as one batch and answer its requests."""
        model, options = group.model, group.options
        steps = options.time_steps
        times = Times(began, encode_began=perf_counter())
        times.decode_seconds, began_thread = times.encode_began - began, thread_time()
        inputs = group.reader.inputs(end, steps, options.seed)
        times.encode_ended = times.run_began = perf_counter()
        try:
            result = model.run(inputs, options.stop, stop=Stop(model.cost.most_operations(end, steps)))
        except Stopped:  # the full way runs it on a thread, and learns what it takes
            for request, *_ in batch:
                request.decline()
            return
        times.run_ended = perf_counter()
        operations = result.synaptic_operations.tolist()
        if options.stop is None:
            model.cost.took(thread_time() - began_thread, sum(operations), end * steps)
        results = Results(result, model.spec)
        contents = [render(results, own) for _, render, own in batch]
        for (request, *_), content in zip(batch, contents, strict=True):
            extras = request.endpoint.extras
            lines = extras.lines
            if extras.timing:
                took = replace(times, arrived=request.started).timing(perf_counter())
                lines = b"%s: %s\r\n%s" % (TIMING, took, lines)
            request.answer(content._replace(lines=lines) if lines else content)
        ended = perf_counter()
        used = None if result.steps_used is None else result.steps_used.tolist()
        answers = [
            BatchedAnswer(
                request.endpoint,
                request.request_id,
                request.started,
                own.stop - own.start,
                (own.stop - own.start) * steps if used is None else sum(used[own]),
                sum(operations[own]),
                request.trace,
            )
            for request, _, own in batch
        ]
        self.access.finish_batch(BatchRecord(model, steps, times, ended, result.spikes_per_node, answers))
        for each in answers:
            if self.tracing and each.trace and each.trace.sampled:
                counts = AnswerRecord(each.samples, steps, each.steps, {}, each.synaptic_operations, times)
                record = RequestRecord(each.request_id, dict(each.endpoint.labels), counts)
                self.tracing.begin(each.trace, METHOD, each.started).end(METHOD, each.endpoint.route, STATUS, record)
