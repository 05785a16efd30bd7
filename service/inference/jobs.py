"""A request on its way through the scheduler."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

from models.coding import EncodedInputs
from models.engines import RunResult
from models.engines.base import Counts, joined
from service.inference.inputs import Query

Content = TypeVar("Content")
Content_co = TypeVar("Content_co", covariant=True)
Asked = TypeVar("Asked", bound=Query)

SMALL_BODY = 2**14  # bytes; a greater one takes longer to read than to hand to another thread


class Form(Protocol[Asked, Content_co]):
    """How a protocol asks one model and is answered. Its methods are called on any thread and keep nothing."""

    def read_small(self, body: bytes) -> Asked | None:
        """Return what a body asks, or None where to read it takes longer than to hand it to another thread.

        Raises as `read` does.
        """
        ...

    def read(self, body: bytes) -> Asked:
        """Return what a body asks. Raises MalformedBody, InvalidInput or TooLarge."""
        ...

    def render(self, query: Asked, result: RunResult) -> Content_co:
        """Return the answer's content."""
        ...


@dataclass
class Times:
    """When a request had arrived, was encoded, and the last run with samples of it went, as `perf_counter` counts."""

    arrived: float
    encode_began: float = 0.0
    encode_ended: float = 0.0
    run_began: float = 0.0
    run_ended: float = 0.0

    @property
    def encode_seconds(self) -> float:
        """What encoding took."""
        return self.encode_ended - self.encode_began


@dataclass(frozen=True)
class Answer(Generic[Content]):
    """An answer's content, and what it took: of these the metrics and the log are made."""

    content: Content
    samples: int
    time_steps: int
    spikes_per_layer: Mapping[str, int]
    synaptic_operations: int | None
    times: Times

    @classmethod
    def of(cls, form: Form[Asked, Content], query: Asked, result: RunResult, times: Times) -> Answer[Content]:
        """Put what the engine found into the form of an answer."""
        return cls(
            content=form.render(query, result),
            samples=len(query.samples),
            time_steps=query.time_steps,
            spikes_per_layer={name: _total(spikes) for name, spikes in result.spikes_per_node.items()},
            synaptic_operations=None if result.synaptic_operations is None else _total(result.synaptic_operations),
            times=times,
        )


def _total(counts: Counts) -> int:
    """Add up (batch,); a batch of one, as most are, needs no sum, which would take six times as long."""
    return int(counts[0]) if len(counts) == 1 else int(counts.sum())


class Job(Generic[Content]):
    """One request: its body until that is read, then its query, and the results of its samples as they come.

    The event loop alone decides what happens to a job; a worker only fills in `query`, `inputs` and `results`.
    """

    def __init__(
        self,
        form: Form[Any, Content],
        answer: Future[Answer[Content]],
        source: bytes | Query,
        now: float,
        times: Times,
    ) -> None:
        self.form = form
        self.answer = answer
        self.body = b"" if isinstance(source, Query) else source
        self.query = source if isinstance(source, Query) else None
        self.inputs: EncodedInputs | None = None
        self.results: dict[int, RunResult] = {}  # by the sample that each begins with
        self.times = times
        self.taken = 0  # samples that runs were started for
        self.arrived = self.since = now  # here, and in its place in the queue
        self.begun = False  # whether anything was done for it yet
        self.held = 0  # the bytes that the scheduler counts for it

    @property
    def over(self) -> bool:
        """Whether it has its answer or nobody waits for one."""
        return self.answer.done()

    @property
    def samples(self) -> int:
        """How many samples it has; 0 before it is read."""
        return 0 if self.query is None else len(self.query.samples)

    @property
    def time_steps(self) -> int:
        """How long it runs; 0 before it is read."""
        return 0 if self.query is None else self.query.time_steps

    @property
    def size(self) -> int:
        """How many bytes its samples have and what the network sees of them, as far as there are any yet."""
        samples = 0 if self.query is None else self.query.samples.nbytes
        return samples + (0 if self.inputs is None else self.inputs.steps.nbytes)

    @property
    def records(self) -> bool:
        """Whether its answer holds more than counts; such a job has a run of its own."""
        return self.query is not None and bool(self.query.wanted)

    def read(self, encode: Callable[[Query], EncodedInputs]) -> None:
        """Read the body, if that was not done, and encode the samples; raises what the form and `encode` do."""
        if self.query is None:
            self.query, self.body = self.form.read(self.body), b""
        self.inputs = self.encoded(encode, self.query)

    def encoded(self, encode: Callable[[Query], EncodedInputs], query: Query) -> EncodedInputs:
        """Return what the network sees of `query`, and note when that was made."""
        self.times.encode_began = perf_counter()
        inputs = encode(query)
        self.times.encode_ended = perf_counter()
        return inputs

    def goes_with(self, other: Job[Content]) -> bool:
        """Whether one run may hold samples of both."""
        return self.time_steps == other.time_steps and not self.records and not other.records

    def complete(self, start: int, result: RunResult) -> Answer[Content] | None:
        """Add the result of the samples from `start` on; return the answer if no other is missing.

        Of two runs that end together on two threads both may return it, and either will do.
        """
        self.results[start] = result
        results = [each for _, each in sorted(self.results.copy().items())]
        if self.query is None or sum(len(each.readout) for each in results) < self.samples:
            return None
        return Answer.of(self.form, self.query, joined(results), self.times)
