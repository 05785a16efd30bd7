"""Which request runs when: at once, beside others or together with them, and never for nobody.

A small request that comes alone runs on the event loop at once. Those that come in the same turn of the loop run
together at its end: nobody waits for what is not there yet. Everything else goes through the bounded queue of its
model's version to the workers' threads, by the policy of its engine (`service.inference.batching`); models take turns.
A request leaves its queue the moment its client does or its time is over, and is then not computed.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, TypeVar, TypeVarTuple

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from service.catalog.served import ServedModel
from service.errors import DeadlineExceeded, Overloaded, ShuttingDown
from service.http.body import BODY, Body
from service.inference.inputs import Query
from service.inference.jobs import SMALL_BODY, Answer, Content, Form, Job, Times
from service.inference.queues import AnyJob, Piece, Reading, Run
from service.inference.runs import Computed, compute, failed
from service.inference.threads import Workers
from service.telemetry.metrics.app import Metrics

MOST_HELD = 2**28  # bytes of samples that are read and not answered; with so many, nothing else is read

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Scheduler:
    """Runs the requests for every model on one pool of workers. All of it happens on the event loop but the work."""

    def __init__(self, workers: Workers, metrics: Metrics) -> None:
        self.workers = workers
        self.metrics = metrics
        self.loop = asyncio.get_running_loop()
        self.free = workers.threads
        metrics.watch_threads(workers.threads, lambda: workers.threads - self.free)
        self.held = 0  # the bytes of all jobs that were read here and have not ended
        self.models: dict[ServedModel, None] = {}  # those that something waits for; the first is next

    async def receive(self, model: ServedModel, request: Request, deadline: float) -> bytes:
        """Return the body of a request for `model`; a long one has to find room in the queue before it is read.

        Raises Overloaded, what its reading does, DeadlineExceeded among it, and ClientDisconnect.
        """
        body: Body | None = request.scope.get(BODY)
        if body is not None:
            body.deadline = deadline
            if not 0 <= body.length <= SMALL_BODY:
                self._require_room(model)
        try:
            return await request.body()
        except DeadlineExceeded:
            self.metrics.queues.count_expired(model)
            raise
        except ClientDisconnect:
            self.metrics.queues.count_abandoned(model)
            raise

    async def answer(
        self, model: ServedModel, form: Form[Any, Content], body: bytes, deadline: float, receive: Receive
    ) -> Answer[Content]:
        """Return what `model` makes of a request whose body has arrived.

        `deadline` is a time of the event loop's clock; the body may say an earlier one. Raises MalformedBody,
        InvalidInput, TooLarge, Overloaded, DeadlineExceeded, and ClientDisconnect where `receive` says so.
        """
        now, times = self.loop.time(), Times(perf_counter())
        if deadline <= now:
            raise self._late(model)
        query = form.read_small(body)
        if query is not None and model.is_quick(query):
            return await self._quickly(model, form, query, times)
        job = Job(form, self.loop.create_future(), body if query is None else query, now, times)
        self._admit(model)
        model.queue.add(job, now)
        self.models[model] = None
        self._dispatch()
        return await self._wait(model, job, deadline, receive)

    async def _quickly(
        self, model: ServedModel, form: Form[Any, Content], query: Query, times: Times
    ) -> Answer[Content]:
        queue = model.queue
        if queue.turn is not None:
            job = Job(form, self.loop.create_future(), query, self.loop.time(), times)
            self._admit(model)
            queue.turn.append(job)
            return await job.answer
        queue.turn = []
        self.loop.call_soon(self._end_turn, model)
        times.encode_began = perf_counter()
        inputs = model.encode(query)
        times.encode_ended = times.run_began = perf_counter()
        result, _ = model.engine.run(inputs)
        times.run_ended = perf_counter()
        self.metrics.models.count_run(model, inputs.batch, times.run_ended - times.run_began)
        return Answer.of(form, query, result, times)

    def _end_turn(self, model: ServedModel) -> None:
        """Run the quick requests that came in the turn that ends."""
        jobs, model.queue.turn = model.queue.turn or [], None
        groups: dict[int, list[AnyJob]] = {}
        for job in jobs:
            self._begin(model, job)
            groups.setdefault(job.time_steps, []).append(job)
        for group in groups.values():
            most, pieces, samples = model.queue.most(group[0]), list[Piece](), 0
            for job in group:
                if pieces and samples + job.samples > most:
                    self._run_here(model, pieces)
                    pieces, samples = [], 0
                pieces.append(Piece(job, 0, job.samples))
                samples += job.samples
            self._run_here(model, pieces)

    def _run_here(self, model: ServedModel, pieces: Sequence[Piece]) -> None:
        try:
            self._deliver(model, compute(model, pieces))
        except Exception as error:
            self._deliver(model, failed(pieces, error))

    def _require_room(self, model: ServedModel) -> None:
        if model.queue.depth >= model.queue.limit:
            self.metrics.queues.count_shed(model)
            raise Overloaded(
                f"model '{model.name}' has {model.queue.depth} requests waiting, expected fewer than max_queue"
            )

    def _admit(self, model: ServedModel) -> None:
        self._require_room(model)
        model.queue.depth += 1
        self.metrics.queues.depth_changed(model, 1)

    def _begin(self, model: ServedModel, job: AnyJob) -> None:
        """Note that something is done for the job, or never will be."""
        if not job.begun:
            job.begun = True
            model.queue.depth -= 1
            self.metrics.queues.depth_changed(model, -1)
            self.metrics.queues.count_wait(model, self.loop.time() - job.arrived)

    async def _wait(self, model: ServedModel, job: Job[Content], deadline: float, receive: Receive) -> Answer[Content]:
        """Wait for the answer, but no longer than the client does."""
        leaving = self.loop.create_task(_gone(receive))
        leaving.add_done_callback(lambda _: self._give_up(job, ClientDisconnect()))
        self._expire(job, deadline)
        self._heed(job)
        try:
            return await job.answer
        except ClientDisconnect:
            self.metrics.queues.count_abandoned(model)
            raise
        except DeadlineExceeded as error:
            raise self._late(model) from error
        finally:
            leaving.cancel()
            model.queue.drop(job)
            self._begin(model, job)
            if job.held:
                self.held -= job.held
                self.loop.call_soon(self._dispatch)  # others may have waited to be read

    def _heed(self, job: AnyJob) -> None:
        """Give the job no more time than its body says, once that is read."""
        if job.query is not None and job.query.timeout is not None:
            self._expire(job, job.arrived + job.query.timeout)

    def _expire(self, job: AnyJob, deadline: float) -> None:
        alarm = self.loop.call_at(deadline, lambda: self._give_up(job, DeadlineExceeded()))
        job.answer.add_done_callback(lambda _: alarm.cancel())

    def _give_up(self, job: AnyJob, fault: Exception) -> None:
        if not job.over:
            job.answer.set_exception(fault)

    def _late(self, model: ServedModel) -> DeadlineExceeded:
        self.metrics.queues.count_expired(model)
        return DeadlineExceeded(f"model '{model.name}' did not answer within the time that the request had")

    def _dispatch(self) -> None:
        """Give every free worker something to do, if there is anything."""
        passed = 0
        while self.free and passed < len(self.models):
            model = next(iter(self.models))
            del self.models[model]  # to the end, since models take turns
            passed = 0 if self._start(model) else passed + 1
            if not model.queue.empty:
                self.models[model] = None

    def _start(self, model: ServedModel) -> bool:
        """Start what the model's queue has next; return whether there was anything."""
        queue = model.queue
        if queue.alarm is not None:
            queue.alarm.cancel()
            queue.alarm = None
        match queue.take(self.loop.time(), may_read=self.held < MOST_HELD):
            case Reading(job):
                self._begin(model, job)
                reading = self._submit(job.read, model.encode)
                reading.add_done_callback(partial(self._has_read, model, job))
                return True
            case Run(pieces):
                for piece in pieces:
                    self._begin(model, piece.job)
                queue.runs += 1
                running = self._submit(compute, model, pieces)
                running.add_done_callback(partial(self._has_run, model, pieces))
                return True
            case float(delay):
                queue.alarm = self.loop.call_later(delay, self._dispatch)
        return False

    def _submit(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        self.free -= 1
        return self.workers.submit(function, *arguments)

    def _has_read(self, model: ServedModel, job: AnyJob, reading: Future[None]) -> None:
        self.free += 1
        fault = _fault(reading)
        if fault is not None:
            self._give_up(job, fault)
        if not job.over:
            self._heed(job)
            job.held = job.size
            self.held += job.held
            model.queue.add(job, job.arrived)
            self.models[model] = None
        self._dispatch()

    def _has_run(self, model: ServedModel, pieces: Sequence[Piece], running: Future[Computed]) -> None:
        self.free += 1
        model.queue.runs -= 1
        fault = _fault(running)
        self._deliver(model, running.result() if fault is None else failed(pieces, fault))
        self._dispatch()

    def _deliver(self, model: ServedModel, computed: Computed) -> None:
        if computed.samples:
            self.metrics.models.count_run(model, computed.samples, computed.seconds)
        for job, answer, fault in computed.outcomes:
            if fault is not None:
                self._give_up(job, fault)
                model.queue.drop(job)
            elif answer is not None and not job.over:
                job.answer.set_result(answer)


async def _gone(receive: Receive) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _fault(work: Future[Any]) -> Exception | None:
    """Return what went wrong; work that was cancelled, since the workers stop, is as much."""
    if work.cancelled():
        return ShuttingDown("the server is shutting down")
    error = work.exception()
    return error if error is None or isinstance(error, Exception) else RuntimeError(repr(error))
