"""A request on its way through the scheduler."""

from __future__ import annotations

import asyncio
import operator
from asyncio import Future
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from models.coding import EncodedInputs, encode
from models.engines import RunResult
from models.engines.base import joined
from service.catalog.loaded import LoadedModel
from service.errors import DeadlineExceeded
from service.inference.codec import Codec, Q
from service.inference.query import Query
from service.telemetry.record import AnswerRecord, Times

Content = TypeVar("Content")


@dataclass(frozen=True)
class Answer(Generic[Content]):
    """An answer's content, and the record of what it took."""

    content: Content
    record: AnswerRecord

    @classmethod
    def of(cls, codec: Codec[Q, Content], query: Q, result: RunResult, times: Times) -> Answer[Content]:
        """Render what the engine found."""
        operations, samples = result.synaptic_operations, len(query.samples)
        # Of a batch of one, as most are, no sum is made: it would take six times as long.
        total = operator.itemgetter(0) if samples == 1 else np.sum
        record = AnswerRecord(
            samples=samples,
            time_steps=query.time_steps,
            spikes_per_layer={name: int(total(spikes)) for name, spikes in result.spikes_per_node.items()},
            synaptic_operations=None if operations is None else int(total(operations)),
            times=times,
        )
        return cls(codec.render(query, result), record)


def encoded(model: LoadedModel, query: Query, times: Times) -> EncodedInputs:
    """Return what the network sees of a query, and note when that was made. Raises InvalidInput."""
    times.encode_began = perf_counter()
    inputs = encode(query.samples, model.spec, query.time_steps, query.seed)
    times.encode_ended = perf_counter()
    return inputs


class Job(Generic[Content]):
    """One request: its body until that is decoded, then its query, and the results of its samples as they come.

    The event loop alone decides what happens to a job; a worker thread only fills in `query`, `inputs` and `results`.
    """

    def __init__(
        self,
        model: LoadedModel,
        codec: Codec[Any, Content],
        answer: Future[Answer[Content]],
        source: bytes | Query,
        now: float,
        times: Times,
    ) -> None:
        self.model = model
        self.codec = codec
        self.answer = answer
        self.body = b"" if isinstance(source, Query) else source
        self.query = source if isinstance(source, Query) else None
        self.inputs: EncodedInputs | None = None
        self.results: dict[int, RunResult] = {}  # by the sample that each begins with
        self.times = times
        self.started = 0  # samples that runs were started for
        self.arrived = self.since = now  # here, and in its place in the queue
        self.begun = False  # whether anything was done for it yet
        self.decoded_bytes = 0  # what the scheduler counts for it

    @property
    def over(self) -> bool:
        """Whether it has its answer or nobody waits for one."""
        return self.answer.done()

    @property
    def samples(self) -> int:
        """How many samples it has; 0 before it is decoded."""
        return 0 if self.query is None else len(self.query.samples)

    @property
    def time_steps(self) -> int:
        """How long it runs; 0 before it is decoded."""
        return 0 if self.query is None else self.query.time_steps

    @property
    def size(self) -> int:
        """How many bytes its samples have and what the network sees of them, as far as there are any yet."""
        samples = 0 if self.query is None else self.query.samples.nbytes
        return samples + (0 if self.inputs is None else self.inputs.steps.nbytes)

    @property
    def records(self) -> bool:
        """Whether its answer holds more than counts; such a job has a run of its own."""
        return self.query is not None and bool(self.query.returned)

    def decode(self) -> None:
        """Decode the body, if that was not done, and encode the samples; raises what the codec and `encode` do."""
        if self.query is None:
            self.query, self.body = self.codec.decode(self.body), b""
        self.inputs = encoded(self.model, self.query, self.times)

    def may_share_a_run(self, other: Job[Any]) -> bool:
        """Whether one run may hold samples of both."""
        return self.time_steps == other.time_steps and not self.records and not other.records

    def fail(self, error: Exception) -> None:
        """End it with an error, unless it has ended."""
        if not self.over:
            self.answer.set_exception(error)

    def expire_at(self, deadline: float) -> None:
        """Let it fail at `deadline`, on the event loop's clock, unless it is over by then."""
        alarm = asyncio.get_running_loop().call_at(deadline, lambda: self.fail(DeadlineExceeded()))
        self.answer.add_done_callback(lambda _: alarm.cancel())

    def complete(self, start: int, result: RunResult) -> Answer[Content] | None:
        """Add the result of the samples from `start` on; return the answer if no other is missing.

        Of two runs that end together on two threads both may return it, and either will do.
        """
        self.results[start] = result
        results = [each for _, each in sorted(self.results.copy().items())]
        if self.query is None or sum(len(each.readout) for each in results) < self.samples:
            return None
        return Answer.of(self.codec, self.query, joined(results), self.times)


AnyJob: TypeAlias = Job[Any]
