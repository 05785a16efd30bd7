"""The scheduler: when, on which thread and in which batch each request runs.

The batcher (`service.inference.scheduling.batcher`) runs short requests on the event loop. Others wait for a worker
thread, in the bounded queue of their version; the policy of the engine (`service.inference.scheduling.batching`) makes
batches of them. A job leaves its queue at once if its client has left or its deadline has passed. A run is stopped once
all its jobs are over.

A job is SHORT or LONG by its price (`service.inference.scheduling.queue`). A free thread takes a short job first, but
after SHORT_TURNS of them a long one; within a class the models are scheduled round-robin. Long jobs run in shards, each
as long as a run may be. So a short job waits for a shard, never for a long job's end, and a long one is never starved.

Long bodies are decoded, and long answers rendered, on two threads of their own, one for each class. Python runs on one
thread at a time anyway. The worker threads stay free for the engines, which run without the interpreter.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from spikeserve.models.coding import Inputs
from spikeserve.models.engines import State
from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.errors import DeadlineExceeded, ShuttingDown, queue_full
from spikeserve.service.inference.decoding.pieces import Interpreter
from spikeserve.service.inference.scheduling.batching import policy_of
from spikeserve.service.inference.scheduling.job import Answer, Job, Part, RawJob, Terms, Work
from spikeserve.service.inference.scheduling.query import SMALL_BODY, Query, RunOptions
from spikeserve.service.inference.scheduling.queue import Price, Queue, Run
from spikeserve.service.inference.scheduling.run import RunOutcome, compute
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry.metrics import Metrics
from spikeserve.service.telemetry.record import Times

MAX_DECODED_BYTES = 2**27  # of samples that are decoded and not answered; beyond it, no other body is decoded
SHORT_TURNS = 3  # the most turns of short jobs in a row while a long one waits
SHORT_BODY = 2**18  # bytes; a longer body is decoded behind other long ones
SHORT_ANSWER = 2**20  # bytes; a longer answer is rendered behind other long ones

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")
Resume: TypeAlias = Callable[[Work], None]  # lets a job wait for its run


@dataclass(eq=False)
class Scheduler:
    """Runs the requests for every model on one thread pool. Its own methods run on the event loop only.

    `enter_sequence` is given each decoded job of a sequence, and resumes it when it is its turn.
    """

    threads: Threads
    codec_threads: tuple[Threads, Threads]  # by price, one thread each
    interpreter: Interpreter  # of the codec threads
    enter_sequence: Callable[[Work, Resume], None]
    metrics: Metrics
    settings: Settings

    def __post_init__(self) -> None:
        metrics = self.metrics
        self.began: dict[Future[Any], float] = {}  # when the work on each thread began, the oldest first
        metrics.threads.set(self.threads.size)
        metrics.busy_threads.function, metrics.longest_run.function = lambda: len(self.began), self.longest
        metrics.queues.depths = self.depths
        self.decoded_bytes = 0  # of samples of jobs that were decoded on a thread and are not over
        self.queues: WeakKeyDictionary[LoadedModel, Queue] = WeakKeyDictionary()
        # Ordered sets, by price: the first is next.
        self.undecoded: tuple[dict[RawJob, None], ...] = ({}, {})
        self.waiting: tuple[dict[LoadedModel, None], ...] = ({}, {})  # the models with decoded jobs waiting
        self.decoding = [False for _ in Price]  # whether a body is being decoded there
        self.short_turns = 0  # of short jobs since the last turn of a long one, while one waits

    def longest(self) -> float:
        """Return for how many seconds the oldest work on a thread has gone on; 0 while there is none."""
        return _now() - next(iter(self.began.values())) if self.began else 0.0

    def queue(self, model: LoadedModel) -> Queue:
        """Return the queue of a model, which lives as long as the model."""
        queue = self.queues.get(model)
        if queue is None:
            policy = policy_of(model.engine.batches, self.settings)
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
            self.metrics.queues.shed.of(model.name).inc()
            raise queue_full(model.name, queue.depth)

    async def run_window(self, model: LoadedModel, inputs: Inputs, state: State | None) -> Part:
        """Run the next steps of a session from `state`, where None is rest; return the result and the next state.

        They wait in the model's queue, whose depth does not count them, since the number of sessions is limited. Raises
        InvalidInput, DeadlineExceeded and ShuttingDown.
        """
        job = Job.begin(model, Times(perf_counter()))
        query = Query(inputs, RunOptions(inputs.time_steps), 0)
        error = DeadlineExceeded(f"model '{model.name}' did not answer a window within request_timeout_ms")
        job.expire_at(job.arrived + self.settings.request_timeout_ms / 1000, error)
        job.answer.add_done_callback(lambda _: job.holds.close())
        self.resume(Work(job, Terms(model, query.options, keeps_state=True), query, state))
        ran: Part = await job.answer
        return ran

    def admit(self, stage: RawJob | Work) -> None:
        """Admit a job, decoded or not. Once it is over, it is counted, and its `holds` are closed.

        Raises Overloaded, UnsupportedMedia, and InvalidRequest for a sequence that is not open.
        """
        job = stage.job
        self.require_room(job.model)
        self.queue(job.model).unstarted.add(job)
        job.holds.callback(self._begin, job)
        job.answer.add_done_callback(partial(self._over, job))
        if isinstance(stage, RawJob):
            # A body so small that it was not decoded at once may stand for much.
            short = SMALL_BODY < len(stage.body) <= SHORT_BODY
            undecoded = self.undecoded[Price.SHORT if short else Price.LONG]
            undecoded[stage] = None
            job.holds.callback(undecoded.pop, stage, None)
        else:
            self._enter(stage)
        self._dispatch()

    def _over(self, job: Job, answer: Future[Answer]) -> None:
        job.holds.close()
        if not answer.cancelled() and answer.exception() is None:
            self.metrics.models.count_answer(job.model, answer.result().record)
        self._dispatch()  # a run that nobody waits for may have ended

    def _enter(self, decoded: Work) -> None:
        """Let a decoded job wait for its run, or for the jobs of its sequence that came before."""
        if decoded.query.timeout is not None:
            decoded.job.expire_at(decoded.job.arrived + decoded.query.timeout)
        if decoded.query.sequence is None:
            self._wait(decoded, decoded.job.arrived)
        else:
            self.enter_sequence(decoded, self.resume)

    def resume(self, work: Work) -> None:
        """Let work wait for its run from now on."""
        self._wait(work, _now())
        self._dispatch()

    def code(self, lane: Price, function: Callable[[*Arguments], T], *arguments: *Arguments) -> Future[T]:
        """Decode or render on the thread of a lane."""
        self.interpreter.begin()
        coding = self.codec_threads[lane].submit(self.interpreter.run, function, *arguments)
        coding.add_done_callback(lambda _: self.interpreter.end())
        return coding

    def _wait(self, work: Work, since: float) -> None:
        model = work.terms.model
        queue = self.queue(model)
        self.waiting[queue.add(work, since)][model] = None
        work.job.holds.callback(queue.drop, work)

    def _begin(self, job: Job) -> None:
        """Take the job off the depth of its model's queue: work on it has started, or never will."""
        queue = self.queue(job.model)
        if job in queue.unstarted:
            queue.unstarted.remove(job)
            self.metrics.queues.seconds.of(job.model.name).observe(_now() - job.arrived)

    def _dispatch(self) -> None:
        """Start work on every free thread, as long as any job waits."""
        for lane in Price:
            self._decode_next(lane)
        while len(self.began) < self.threads.size and self._start_next():
            pass

    def _decode_next(self, lane: Price) -> None:
        undecoded = self.undecoded[lane]
        if undecoded and not self.decoding[lane] and self.decoded_bytes < MAX_DECODED_BYTES:
            queued = next(iter(undecoded))
            del undecoded[queued]
            self._begin(queued.job)
            self.decoding[lane] = True
            decoding = self.code(lane, queued.job.work, queued.decode)
            decoding.add_done_callback(partial(self._decoded, lane, queued.job))

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
        run = queue.take(price, _now())
        if run is None:
            return False
        queue.running.add(run)
        for shard in run.shards:
            self._begin(shard.work.job)
            shard.work.job.holds.callback(queue.stop_unwanted, run)
        computing = self.threads.submit(compute, run.shards, run.stop)
        self.began[computing] = _now()
        computing.add_done_callback(partial(self._computed, queue, model, run))
        return True

    def _decoded(self, lane: Price, job: Job, decoding: Future[Work | None]) -> None:
        self.decoding[lane] = False
        decoded = _result(job, decoding)
        if decoded is not None:
            size = decoded.query.samples.nbytes
            self.decoded_bytes += size
            job.holds.callback(self._free, size)
            try:
                self._enter(decoded)
            except SpikeserveError as error:
                job.fail(error)
        self._dispatch()

    def _free(self, size: int) -> None:
        self.decoded_bytes -= size
        if size:
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _computed(self, queue: Queue, model: LoadedModel, run: Run, computing: Future[RunOutcome]) -> None:
        del self.began[computing]
        queue.running.discard(run)
        error = _error(computing)
        failed = error and RunOutcome([(shard, error) for shard in run.shards])
        self._deliver(model, failed or computing.result())
        self._dispatch()

    def _deliver(self, model: LoadedModel, computed: RunOutcome) -> None:
        if computed.samples:
            self.metrics.models.count_run(model, computed.samples, computed.seconds)
        for (work, start, _), outcome in computed.outcomes:
            job = work.job
            if isinstance(outcome, Exception):
                job.fail(outcome)
                job.holds.close()
            elif not isinstance(outcome, Part) or work.query.render is None:
                if not job.over:
                    job.answer.set_result(outcome)
            elif (render := work.add(start, outcome)) is not None:  # a long answer, on a thread
                lane = Price.SHORT if work.query.answer_bytes <= SHORT_ANSWER else Price.LONG
                self.code(lane, job.work, render).add_done_callback(partial(_rendered, job))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _error(work: Future[Any]) -> Exception | None:
    """Return the error of finished work, if any; work is cancelled when the server shuts down."""
    if work.cancelled():
        return ShuttingDown("the server is shutting down")
    error = work.exception()
    return error if error is None or isinstance(error, Exception) else RuntimeError(repr(error))


def _result(job: Job, work: Future[T]) -> T | None:
    """Return the result of a part of a job's work, or None if the job is over; an error ends the job."""
    error = _error(work)
    if error is not None:
        job.fail(error)
    return None if job.over else work.result()


def _rendered(job: Job, rendering: Future[Any]) -> None:
    answer = _result(job, rendering)
    if answer is not None:
        job.answer.set_result(answer)
