"""A job: one request on its way through the scheduler."""

from __future__ import annotations

import asyncio
import operator
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np

from spikeserve.models.coding import Inputs, encode
from spikeserve.models.engines import Record, RunResult, State
from spikeserve.models.engines.anytime import StopRule
from spikeserve.models.engines.base import joined
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import DeadlineExceeded
from spikeserve.service.inference.decoding.pieces import SHORT_BYTES
from spikeserve.service.inference.scheduling.query import NOBODY, Codec, Q, Query, Returned
from spikeserve.service.telemetry.record import AnswerRecord, Times

if TYPE_CHECKING:  # it imports this module
    from spikeserve.service.inference.scheduling.queue import Queue

Content = TypeVar("Content")


@dataclass(frozen=True)
class Answer(Generic[Content]):
    """An answer's content, with its times and counts for the log, the metrics and the trace."""

    content: Content
    record: AnswerRecord

    @classmethod
    def of(
        cls, codec: Codec[Q, Content], query: Q, result: RunResult, times: Times, after: State | None = None
    ) -> Answer[Content]:
        """Render a run's result, and record its times and counts; `after` is the state after it, of a sequence."""
        operations, samples, used = result.synaptic_operations, len(query.samples), result.steps_used
        # Most batches hold one sample, and NumPy's sum takes six times as long as taking the first element.
        total = operator.itemgetter(0) if samples == 1 else np.sum
        record = AnswerRecord(
            samples=samples,
            time_steps=query.time_steps,
            steps=samples * query.time_steps if used is None else int(used.sum()),
            spikes_per_layer={name: int(total(spikes)) for name, spikes in result.spikes_per_node.items()},
            synaptic_operations=None if operations is None else int(total(operations)),
            times=times,
        )
        return cls(codec.render(query, result, after), record)


def encoded(model: LoadedModel, query: Query, times: Times, state: State | None = None) -> Inputs:
    """Encode a query's samples and record when that began and ended.

    `state` is what its one sample goes on from, if it is of a sequence. Raises InvalidInput.
    """
    times.encode_began = perf_counter()
    samples, first = query.samples, 0 if state is None else int(state.steps[0])
    if isinstance(samples, np.ndarray):
        inputs: Inputs = encode(samples, model.spec, query.time_steps, query.seed, first)
    else:
        inputs = samples
    times.encode_ended = perf_counter()
    return inputs


class Job(Generic[Content]):
    """One request: its body until that is decoded, then its query and the results of its samples.

    Only the event loop decides what happens to a job; a worker thread only sets `query`, `inputs` and `results`.
    """

    def __init__(
        self,
        model: LoadedModel,
        codec: Codec[Any, Content] | None,
        answer: Future[Any],
        source: bytes | Query,
        now: float,
        times: Times,
        reserve: Callable[[int], None],
    ) -> None:
        self.model = model
        self.codec = codec
        self.answer = answer
        self.body = b"" if isinstance(source, Query) else source
        self.query = source if isinstance(source, Query) else None
        self.inputs: Inputs | None = None
        self.keeps_state = False  # whether it goes on from `state`, where None is rest, and gets the state `after`
        self.state: State | None = None
        self.after: State | None = None
        self.sender = NOBODY
        self.results: dict[int, RunResult] = {}  # by the index of the first sample of each
        self.times = times
        self.started = 0  # how many of its samples are in runs that have started
        self.arrived = self.since = now  # when it came, and since when it has been at its place in the queue
        self.queue: Queue | None = None  # the queue whose depth counts it, until work on it starts
        self.reserve = reserve  # reserves bytes of the memory budget until the request ends
        self.answer_size = 0 if self.query is None else self.query.answer_bytes
        self.decoded_bytes = 0  # its share of the scheduler's count of decoded bytes
        self.encoded_bytes = 0  # and of encoded ones
        self.rendering = False  # whether its long answer is being rendered

    @property
    def over(self) -> bool:
        """Whether it has been answered or abandoned."""
        return self.answer.done()

    @property
    def samples(self) -> int:
        """The number of its samples; 0 before it is decoded."""
        return 0 if self.query is None else len(self.query.samples)

    @property
    def time_steps(self) -> int:
        """The number of time steps that it runs; 0 before it is decoded."""
        return 0 if self.query is None else self.query.time_steps

    @property
    def record(self) -> Record:
        """What the engine must record for its answer."""
        return Record.NONE if self.query is None else self.query.record

    @property
    def reports(self) -> bool:
        """Whether its answer has a report of each sample."""
        return self.query is not None and Returned.REPORT in self.query.returned

    @property
    def stop(self) -> StopRule | None:
        """The rule by which its samples end early, if any."""
        return None if self.query is None else self.query.stop

    @property
    def needs_own_run(self) -> bool:
        """Whether it shares no run: its answer holds more than counts, or the model's samples are run one by one."""
        return not self.model.shares_runs or (self.query is not None and bool(self.query.returned))

    def decode(self) -> None:
        """Decode the body and reserve the answer's bytes, unless it is over; raises what the codec raises."""
        if not self.over and self.codec is not None:
            began = perf_counter()
            query = self.codec.decode(self.body)
            self.times.decode_seconds = perf_counter() - began
            self.answer_size = query.answer_bytes
            reserve_answer(self.reserve, self.answer_size)
            self.query, self.body = query, b""

    def encode(self) -> None:
        """Encode all samples, unless it is over. Raises InvalidInput."""
        if self.query is not None and not self.over:
            self.inputs = encoded(self.model, self.query, self.times, self.state)

    def run_inputs(self) -> Inputs | None:
        """Return all its samples as a run takes them, or None where it has none yet. Raises InvalidInput."""
        if self.inputs is None and self.query is not None:
            return encoded(self.model, self.query, self.times, self.state)
        return self.inputs

    def may_share_a_run(self, other: Job[Any]) -> bool:
        """Return whether one run may hold samples of both."""
        alike = self.time_steps == other.time_steps and self.stop is other.stop
        alike = alike and self.keeps_state is other.keeps_state
        return alike and not self.needs_own_run and not other.needs_own_run

    def fail(self, error: Exception) -> None:
        """End it with an error, unless it is over."""
        if not self.over:
            self.answer.set_exception(error)

    def expire_at(self, deadline: float) -> None:
        """End it with DeadlineExceeded at `deadline`, on the event loop's clock, unless it is over by then."""
        timer = asyncio.get_running_loop().call_at(deadline, lambda: self.fail(DeadlineExceeded()))
        self.answer.add_done_callback(lambda _: timer.cancel())

    def complete(self, start: int, result: RunResult) -> Answer[Content] | RunResult | None:
        """Add the result of the samples from `start` on; once all are there, return the answer.

        Where the answer is long, the whole result is returned instead, to be rendered elsewhere. If two runs end at the
        same time on two threads, both may return it; they are equal.
        """
        self.results[start] = result
        results = [each for _, each in sorted(self.results.copy().items())]
        if self.query is None or sum(len(each.readout) for each in results) < self.samples:
            return None
        return joined(results) if self.answer_size > SHORT_BYTES else self.render(joined(results))

    def render(self, result: RunResult) -> Answer[Content] | None:
        """Render the answer, unless the job is over."""
        if self.query is None or self.codec is None or self.over:
            return None
        return Answer.of(self.codec, self.query, result, self.times, self.after)


def reserve_answer(reserve: Callable[[int], None], size: int) -> None:
    """Reserve the bytes of an answer in the memory budget, unless they are few. Raises Overloaded."""
    if size > SHORT_BYTES:
        reserve(size)


AnyJob: TypeAlias = Job[Any]
