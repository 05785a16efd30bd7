"""The scheduler: when, on which thread and in which batch each request runs.

Small requests run on the event loop, those of the same iteration as a batch at its end, so that none waits for requests
that are not there yet (`service.inference.ordinary.tick` does the same with ordinary ones). All others wait in the
bounded queue of their model's version for the worker threads, by the policy of the engine
(`service.inference.scheduling.batching`). A job whose client has left or whose deadline has passed leaves its queue at
once, and a run is stopped once all its jobs are over.

A job is SHORT or LONG by its price (`service.inference.scheduling.queue`). When a thread is free, a short job goes
first, but after SHORT_TURNS of them a long one that waits has a turn; within a class the models are scheduled
round-robin. Long jobs run in shards that are expected to take as long as a run may. So a short job waits for a shard,
and never for a long job's end, and a long one is never starved.

Long bodies are decoded, and long answers rendered, on threads of their own, one for each class: Python runs on one
thread at a time anyway, and the worker threads are free for the engines, which run without the interpreter. A third
thread waits for the processes that read recordings' files, one at a time.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import RunResult, State
from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.errors import DeadlineExceeded, Overloaded, ShuttingDown
from spikeserve.service.inference.decoding.pieces import Interpreter
from spikeserve.service.inference.scheduling.batching import policy_of
from spikeserve.service.inference.scheduling.job import AnyJob, Content, Job
from spikeserve.service.inference.scheduling.query import NOBODY, SMALL_BODY, Codec, InSequence, Q, Sender
from spikeserve.service.inference.scheduling.queue import Encode, Price, Queue, Run
from spikeserve.service.inference.scheduling.run import Computed, Shard, compute, failed
from spikeserve.service.inference.scheduling.slices import Slice, Sliced
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import Times

MAX_DECODED_BYTES = 2**27  # of samples that are decoded and not answered; beyond it, no other body is decoded
MAX_ENCODED_BYTES = 2**27  # of inputs that were encoded to be split into shards; beyond it, no others are
SHORT_TURNS = 3  # the most turns of short jobs in a row while a long one waits
SHORT_BODY = 2**18  # bytes; a longer body is decoded behind other long ones
SHORT_ANSWER = 2**20  # bytes; a longer answer is rendered behind other long ones

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Lane(IntEnum):
    """The codec threads: one for short work and one for long, as `Price` has them, and one that waits for processes."""

    SHORT = Price.SHORT
    LONG = Price.LONG
    WAITING = 2


class Scheduler:
    """Runs the requests for every model on one thread pool. Its own methods run on the event loop only."""

    def __init__(
        self, threads: Threads, codec_threads: tuple[Threads, Threads, Threads], metrics: Metrics, settings: Settings
    ) -> None:
        self.threads = threads
        self.codec_threads = codec_threads  # by lane, one thread each
        self.metrics = metrics
        self.settings = settings
        self.began: dict[Future[Any], float] = {}  # when the work on each thread began, the oldest first
        metrics.watch_threads(threads.size, lambda: len(self.began), self.longest)
        metrics.queues.watch(self.depths)
        self.decoded_bytes = 0  # of all jobs that were decoded on a thread and are not over
        self.encoded_bytes = 0  # of all jobs that were encoded before their run and are not over
        self.queues: WeakKeyDictionary[LoadedModel, Queue] = WeakKeyDictionary()
        self.small: list[AnyJob] = []  # that came in this iteration of the event loop
        # Ordered sets, by lane and by price: the first is next.
        self.undecoded: tuple[dict[AnyJob, None], ...] = ({}, {}, {})
        self.waiting: tuple[dict[LoadedModel, None], ...] = ({}, {})  # the models with decoded jobs waiting
        self.interpreter = Interpreter()  # of the codec threads
        self.decoding = [False for _ in Lane]  # whether a body is being decoded there
        self.enter_sequence: Callable[[AnyJob, InSequence], None] = lambda *_: None  # see `protocols.v2.sequences`
        self.short_turns = 0  # of short jobs since the last turn of a long one, while one waits

    def longest(self) -> float:
        """Return for how many seconds the oldest work on a thread has gone on; 0 while there is none."""
        return _now() - next(iter(self.began.values())) if self.began else 0.0

    def queue(self, model: LoadedModel) -> Queue:
        """Return the queue of a model, which lives as long as the model."""
        queue = self.queues.get(model)
        if queue is None:
            policy = policy_of(model.engine.name, self.settings)
            queue = self.queues[model] = Queue(policy, model.cost, self.settings.max_queue)
        return queue

    def depths(self) -> Counter[str]:
        """Return how many requests wait for each model, its versions together; models without any may be missing."""
        depths = Counter[str]()
        for model, queue in self.queues.items():
            depths[model.name] += queue.depth
        return depths

    def require_room(self, model: LoadedModel) -> None:
        """Raise Overloaded where the model's queue is full."""
        queue = self.queue(model)
        if queue.depth >= queue.limit:
            self.metrics.queues.count_shed(model)
            raise Overloaded(f"model '{model.name}' has {queue.depth} requests waiting, expected fewer than max_queue")

    def run_small(self, job: Job[Content]) -> None:
        """Run a small job at the end of this iteration of the event loop, in a batch with those like it."""
        if not self.small:
            asyncio.get_running_loop().call_soon(self._run_small)
        self.small.append(job)

    async def run_slice(self, model: LoadedModel, inputs: Inputs, state: State | None) -> Sliced:
        """Run a session's next steps, and return their result and the state after them.

        Small ones run at the end of this iteration of the event loop. Others wait in the model's queue, and share runs
        there. Raises InvalidInput, DeadlineExceeded and ShuttingDown.
        """
        now = _now()
        job = Slice(model, inputs, state, _future(), now)
        if model.cost.is_small(1, inputs.time_steps):
            self.run_small(job)
            return await job.answer  # a job that is over by then is left out
        job.expire_at(now + self.settings.request_timeout_ms / 1000)
        try:
            self._wait(job, now)
            self._dispatch()
            return await job.answer
        except DeadlineExceeded as error:
            raise DeadlineExceeded(f"model '{model.name}' did not answer a window within request_timeout_ms") from error
        finally:
            self.forget(job)

    def job(
        self,
        model: LoadedModel,
        codec: Codec[Q, Content],
        source: bytes | Q,
        times: Times,
        reserve: Callable[[int], None],
    ) -> Job[Content]:
        """Return a job of a body, or of the query that it was decoded to."""
        return Job(model, codec, _future(), source, _now(), times, reserve)

    @contextmanager
    def admitted(
        self,
        model: LoadedModel,
        codec: Codec[Q, Content],
        source: bytes | Q,
        times: Times,
        reserve: Callable[[int], None],
        sender: Sender = NOBODY,
    ) -> Iterator[Job[Content]]:
        """Admit a body, or the query that it was decoded to, as a job of the model; at the end the job is over.

        `reserve` reserves bytes of the memory budget for the answer. Raises Overloaded, UnsupportedMedia, and
        InvalidRequest for a sequence that is not open.
        """
        self.require_room(model)
        job = self.job(model, codec, source, times, reserve)
        job.sender = sender
        job.queue = self.queue(model)
        job.queue.unstarted.add(job)
        try:
            self._enqueue(job)
            yield job
        finally:
            self.forget(job)

    def _enqueue(self, job: AnyJob) -> None:
        """Have a job decoded, or wait for its run."""
        if (query := job.query) is None:
            waits = job.codec is not None and job.codec.waits(job.body)
            # A body so small that it was not decoded at once may stand for much.
            short = SMALL_BODY < len(job.body) <= SHORT_BODY
            lane = Lane.WAITING if waits else Lane.SHORT if short else Lane.LONG
            self.undecoded[lane][job] = None
        elif query.sequence is not None:
            self.enter_sequence(job, query.sequence)
        else:
            self._wait(job, job.arrived)
        self._dispatch()

    def resume(self, job: AnyJob) -> None:
        """Let a job wait for its run, now that those of its sequence before it have run."""
        self._wait(job, _now())
        self._dispatch()

    def forget(self, job: AnyJob) -> None:
        """End a job, if it is not over, and give back all that it holds."""
        job.answer.cancel()
        queue = self.queue(job.model)
        for undecoded in self.undecoded:
            undecoded.pop(job, None)
        queue.drop(job)
        self._begin(job)
        for run in queue.running:
            run.stop_if_unwanted()
        if job.decoded_bytes or job.encoded_bytes:
            self.decoded_bytes -= job.decoded_bytes
            self.encoded_bytes -= job.encoded_bytes
            job.decoded_bytes = job.encoded_bytes = 0
            asyncio.get_running_loop().call_soon(self._dispatch)  # other jobs may have waited for room

    def _wait(self, job: AnyJob, since: float) -> None:
        self.waiting[self.queue(job.model).add(job, since)][job.model] = None

    def _begin(self, job: AnyJob) -> None:
        """Take the job off the depth of the queue that counts it: work on it has started, or never will."""
        queue, job.queue = job.queue, None
        if queue is not None:
            queue.unstarted.remove(job)
            self.metrics.queues.count_wait(job.model, _now() - job.arrived)

    def _run_small(self) -> None:
        """Run the small jobs that came in this iteration of the event loop, in batches."""
        jobs, self.small = self.small, []
        alike: dict[Any, list[Shard]] = {}
        for job in jobs:
            key = (job.model, job.time_steps, job.stop, job.keeps_state)
            alike.setdefault(key, []).append(Shard(job, 0, job.samples))
        for shards in alike.values():
            try:
                self._run_alike(shards)
            except Exception as error:  # or their clients would wait for ever
                for shard in shards:
                    shard.job.fail(error)

    def _run_alike(self, shards: list[Shard]) -> None:
        """Run small jobs of one model, and of as many steps, in batches."""
        model = shards[0].job.model
        queue = self.queue(model)
        limit = queue.max_samples(shards[0].job)
        while shards:
            ends = list(accumulate(shard.stop for shard in shards))
            count = max(1, bisect_right(ends, limit))
            batch, shards = shards[:count], shards[count:]
            try:
                self._deliver(queue, model, compute(model, batch))
            except Exception as error:
                self._deliver(queue, model, failed(batch, error))

    def _dispatch(self) -> None:
        """Start work on every free thread, as long as any job waits."""
        for lane in Lane:
            self._decode_next(lane)
        while len(self.began) < self.threads.size and self._start_next():
            pass

    def _decode_next(self, lane: Lane) -> None:
        undecoded = self.undecoded[lane]
        if undecoded and not self.decoding[lane] and self.decoded_bytes < MAX_DECODED_BYTES:
            job = next(iter(undecoded))
            del undecoded[job]
            self._begin(job)
            self.decoding[lane] = True
            self._code(lane, job.decode).add_done_callback(partial(self._decoded, lane, job))

    def _start_next(self) -> bool:
        """Start the next work of the class whose turn it is, or else of the other; return whether there was any."""
        long_turn = self.short_turns >= SHORT_TURNS and self.waiting[Price.LONG]
        for price in reversed(Price) if long_turn else Price:
            line = self.waiting[price]
            for model in list(line):
                queue = self.queue(model)
                started = self._start(model, queue, price)
                del line[model]  # it goes to the end: round-robin
                for each in Price:
                    if queue.waiting[each]:
                        self.waiting[each][model] = None
                if started:
                    waits = price is Price.SHORT and self.waiting[Price.LONG]
                    self.short_turns = self.short_turns + 1 if waits else 0
                    return True
        return False

    def _start(self, model: LoadedModel, queue: Queue, price: Price) -> bool:
        """Start the next work of a class of the model's queue; return whether there was any."""
        queue.stop_timer()
        match queue.take(price, _now(), may_encode=self.encoded_bytes < MAX_ENCODED_BYTES):
            case Encode(job):
                self._begin(job)
                self._submit(job.encode).add_done_callback(partial(self._encoded, job))
                return True
            case Run() as run:
                for shard in run.shards:
                    self._begin(shard.job)
                queue.running.add(run)
                computing = self._submit(compute, model, run.shards, run.stop)
                computing.add_done_callback(partial(self._computed, queue, model, run))
                return True
            case float(delay):
                queue.timer = asyncio.get_running_loop().call_later(delay, self._dispatch)
        return False

    def _submit(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        work = self.threads.submit(function, *arguments)
        self.began[work] = _now()
        return work

    def _code(self, lane: Lane, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        """Decode or render on the thread of a lane."""
        self.interpreter.begin()
        coding = self.codec_threads[lane].submit(self.interpreter.run, function, *arguments)
        coding.add_done_callback(lambda _: self.interpreter.end())
        return coding

    def _decoded(self, lane: Lane, job: AnyJob, decoding: Future[None]) -> None:
        self.decoding[lane] = False
        if self._goes_on(job, decoding) and job.query is not None:
            if job.query.timeout is not None:
                job.expire_at(job.arrived + job.query.timeout)
            job.decoded_bytes = job.query.samples.nbytes
            self.decoded_bytes += job.decoded_bytes
            if job.query.sequence is None:
                self._wait(job, job.arrived)
            else:
                try:
                    self.enter_sequence(job, job.query.sequence)
                except SpikeserveError as error:
                    job.fail(error)
        self._dispatch()

    def _encoded(self, job: AnyJob, encoding: Future[None]) -> None:
        del self.began[encoding]
        if self._goes_on(job, encoding) and job.inputs is not None:
            job.encoded_bytes = job.inputs.nbytes
            self.encoded_bytes += job.encoded_bytes
            self._wait(job, job.arrived)
        self._dispatch()

    def _goes_on(self, job: AnyJob, work: Future[Any]) -> bool:
        """Return whether a job is not over after a part of its work; an error of that ends it."""
        error = _error(work)
        if error is not None:
            job.fail(error)
        return not job.over

    def _computed(self, queue: Queue, model: LoadedModel, run: Run, computing: Future[Computed]) -> None:
        del self.began[computing]
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
            elif isinstance(answer, RunResult):
                self._render(job, answer)
            elif answer is not None and not job.over:
                job.answer.set_result(answer)

    def _render(self, job: AnyJob, result: RunResult) -> None:
        """Render a long answer on a thread."""
        if job.over or job.rendering:
            return
        job.rendering = True
        job.results.clear()
        lane = Lane.SHORT if job.answer_size <= SHORT_ANSWER else Lane.LONG
        self._code(lane, job.render, result).add_done_callback(partial(self._rendered, job))

    def _rendered(self, job: AnyJob, rendering: Future[Any]) -> None:
        if self._goes_on(job, rendering):
            job.answer.set_result(rendering.result())


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
