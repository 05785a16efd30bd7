"""The scheduler: when, on which thread and in which batch each request runs.

A small request that comes alone runs on the event loop at once. Small requests that come in the same iteration of the
loop run as a batch at its end, so that none waits for requests that are not there yet. All others go through the
bounded queue of their model's version to the worker threads, by the policy of the engine
(`service.inference.batching`); models are scheduled round-robin. A job whose client has left or whose deadline has
passed leaves its queue at once, and a run is stopped once all its jobs are over.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from service.catalog.loaded import LoadedModel
from service.catalog.threads import Threads
from service.errors import Overloaded, ShuttingDown
from service.inference.batching import policy_of
from service.inference.codec import Codec, Q
from service.inference.job import Answer, AnyJob, Content, Job, encoded
from service.inference.queue import Decode, Queue, Run
from service.inference.run import Computed, compute, failed
from service.settings import Settings
from service.telemetry.metrics.app import Metrics
from service.telemetry.record import Times

MAX_DECODED_BYTES = 2**28  # of samples that are decoded and not answered; beyond it, no other body is decoded

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Scheduler:
    """Runs the requests for every model on one thread pool. Its own methods run on the event loop only."""

    def __init__(self, threads: Threads, metrics: Metrics, settings: Settings) -> None:
        self.threads = threads
        self.metrics = metrics
        self.settings = settings
        self.free = threads.size
        metrics.watch_threads(threads.size, lambda: threads.size - self.free)
        self.decoded_bytes = 0  # of all jobs that were decoded on a thread and are not over
        self.queues: WeakKeyDictionary[LoadedModel, Queue] = WeakKeyDictionary()
        self.waiting: dict[LoadedModel, None] = {}  # an ordered set: the models with jobs waiting; the first is next

    def queue(self, model: LoadedModel) -> Queue:
        """Return the queue of a model, which lives as long as the model."""
        queue = self.queues.get(model)
        if queue is None:
            policy = policy_of(model.engine.name, self.settings)
            queue = self.queues[model] = Queue(policy, model.cost, self.settings.max_queue)
        return queue

    def require_room(self, model: LoadedModel) -> None:
        """Raise Overloaded where the model's queue is full."""
        queue = self.queue(model)
        if queue.depth >= queue.limit:
            self.metrics.queues.count_shed(model)
            raise Overloaded(f"model '{model.name}' has {queue.depth} requests waiting, expected fewer than max_queue")

    def run_small(
        self, model: LoadedModel, codec: Codec[Q, Content], query: Q, times: Times
    ) -> Answer[Content] | Job[Content]:
        """Run a small query at once, or at the end of this iteration of the event loop if another ran in it already.

        Returns the answer in the first case and a job in the second. Raises InvalidInput and Overloaded.
        """
        queue = self.queue(model)
        if queue.burst is not None:
            job = self._admit(model, queue, Job(model, codec, _future(), query, _now(), times))
            queue.burst.append(job)
            return job
        queue.burst = []
        asyncio.get_running_loop().call_soon(self._run_burst, model, queue)
        inputs = encoded(model, query, times)
        times.run_began = perf_counter()
        result, _ = model.engine.run(inputs)
        times.run_ended = perf_counter()
        self.metrics.models.count_run(model, inputs.batch, times.run_ended - times.run_began)
        return Answer.of(codec, query, result, times)

    def enqueue(self, model: LoadedModel, codec: Codec[Q, Content], source: bytes | Q, times: Times) -> Job[Content]:
        """Queue a body, or the query that it was decoded to, for the worker threads. Raises Overloaded."""
        queue, now = self.queue(model), _now()
        job = self._admit(model, queue, Job(model, codec, _future(), source, now, times))
        queue.add(job, now)
        self.waiting[model] = None
        self._dispatch()
        return job

    def forget(self, job: AnyJob) -> None:
        """Remove a job that is over."""
        queue = self.queue(job.model)
        queue.drop(job)
        self._begin(queue, job)
        for run in queue.running:
            run.stop_if_unwanted()
        if job.decoded_bytes:
            self.decoded_bytes -= job.decoded_bytes
            asyncio.get_running_loop().call_soon(self._dispatch)  # other jobs may have waited to be decoded

    def _admit(self, model: LoadedModel, queue: Queue, job: Job[Content]) -> Job[Content]:
        self.require_room(model)
        queue.depth += 1
        self.metrics.queues.depth_changed(model, 1)
        return job

    def _begin(self, queue: Queue, job: AnyJob) -> None:
        """Take the job off the queue's depth: work on it has started, or never will."""
        if not job.begun:
            job.begun = True
            queue.depth -= 1
            self.metrics.queues.depth_changed(job.model, -1)
            self.metrics.queues.count_wait(job.model, _now() - job.arrived)

    def _run_burst(self, model: LoadedModel, queue: Queue) -> None:
        """Run the small jobs that came in this iteration of the event loop."""
        for shards in queue.take_burst():
            for shard in shards:
                self._begin(queue, shard.job)
            try:
                self._deliver(queue, model, compute(model, shards))
            except Exception as error:
                self._deliver(queue, model, failed(shards, error))

    def _dispatch(self) -> None:
        """Start work on every free thread, as long as any job waits."""
        passed = 0
        while self.free and passed < len(self.waiting):
            model = next(iter(self.waiting))
            del self.waiting[model]  # it goes to the end: round-robin
            queue = self.queue(model)
            passed = 0 if self._start(model, queue) else passed + 1
            if not queue.empty:
                self.waiting[model] = None

    def _start(self, model: LoadedModel, queue: Queue) -> bool:
        """Start the next work of the model's queue; return whether there was any."""
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        match queue.take(_now(), may_decode=self.decoded_bytes < MAX_DECODED_BYTES):
            case Decode(job):
                self._begin(queue, job)
                self._submit(job.decode).add_done_callback(partial(self._decoded, queue, job))
                return True
            case Run() as run:
                for shard in run.shards:
                    self._begin(queue, shard.job)
                queue.running.add(run)
                computing = self._submit(compute, model, run.shards, run.stop)
                computing.add_done_callback(partial(self._computed, queue, model, run))
                return True
            case float(delay):
                queue.timer = asyncio.get_running_loop().call_later(delay, self._dispatch)
        return False

    def _submit(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        self.free -= 1
        return self.threads.submit(function, *arguments)

    def _decoded(self, queue: Queue, job: AnyJob, decoding: Future[None]) -> None:
        self.free += 1
        error = _error(decoding)
        if error is not None:
            job.fail(error)
        if not job.over:
            if job.query is not None and job.query.timeout is not None:
                job.expire_at(job.arrived + job.query.timeout)
            job.decoded_bytes = job.size
            self.decoded_bytes += job.decoded_bytes
            queue.add(job, job.arrived)
            self.waiting[job.model] = None
        self._dispatch()

    def _computed(self, queue: Queue, model: LoadedModel, run: Run, computing: Future[Computed]) -> None:
        self.free += 1
        queue.running.discard(run)
        error = _error(computing)
        self._deliver(queue, model, computing.result() if error is None else failed(run.shards, error))
        self._dispatch()

    def _deliver(self, queue: Queue, model: LoadedModel, computed: Computed) -> None:
        if computed.samples:
            self.metrics.models.count_run(model, computed.samples, computed.seconds)
        for job, answer, error in computed.outcomes:
            if error is not None:
                job.fail(error)
                queue.drop(job)
            elif answer is not None and not job.over:
                job.answer.set_result(answer)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _future() -> Future[Any]:
    return asyncio.get_running_loop().create_future()


def _error(work: Future[Any]) -> Exception | None:
    """Return the error of finished work, if any; work is cancelled when the server shuts down."""
    if work.cancelled():
        return ShuttingDown("the server is shutting down")
    error = work.exception()
    return error if error is None or isinstance(error, Exception) else RuntimeError(repr(error))
