"""The statistics extension of the Open Inference Protocol: how often and how long each phase of its requests took.

Only the event loop counts, so that no lock is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Self

from pydantic import Field
from typing_extensions import TypedDict

from spikeserve.service.telemetry.record import AnswerRecord, BatchedAnswer, BatchRecord, Model, Times

NS = 10**9
MAX_SIZES = 256  # batch sizes with their own statistics; further sizes are counted in the totals only


class Duration(TypedDict):
    """A count, and the sum of nanoseconds."""

    count: int
    ns: int


class InferenceStats(TypedDict):
    """The duration of each phase of the requests."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStats(TypedDict):
    """The duration of each phase of the requests of one batch size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStats(TypedDict):
    """The statistics of one version over this protocol, since the server's workers started."""

    name: str
    version: str
    last_inference: Annotated[int, Field(description="Milliseconds since 1970; 0 means never.")]
    inference_count: Annotated[int, Field(description="Samples.")]
    execution_count: Annotated[int, Field(description="Requests; some may have shared a run of the engine.")]
    inference_stats: InferenceStats
    batch_stats: list[BatchStats]


class Statistics(TypedDict):
    """The statistics of some versions."""

    model_stats: list[ModelStats]


@dataclass
class Sum:
    """A count, and the sum of nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.count += 1
        self.ns += round(seconds * NS)

    def join(self, other: Self) -> None:
        """Count what another one has counted."""
        self.count += other.count
        self.ns += other.ns

    def as_duration(self) -> Duration:
        """Return it in the protocol's format."""
        return {"count": self.count, "ns": self.ns}


@dataclass
class ComputeSums:
    """The sums of the phases of computing, of one batch size or of all."""

    compute_input: Sum = field(default_factory=Sum)
    compute_infer: Sum = field(default_factory=Sum)
    compute_output: Sum = field(default_factory=Sum)

    def join(self, other: Self) -> None:
        """Count what another one has counted."""
        self.compute_input.join(other.compute_input)
        self.compute_infer.join(other.compute_infer)
        self.compute_output.join(other.compute_output)


@dataclass
class VersionSums:
    """The sums of one version of one model."""

    last_inference: int = 0
    samples: int = 0
    success: Sum = field(default_factory=Sum)
    fail: Sum = field(default_factory=Sum)
    queue: Sum = field(default_factory=Sum)
    compute: ComputeSums = field(default_factory=ComputeSums)
    by_size: dict[int, ComputeSums] = field(default_factory=dict)

    @classmethod
    def summed(cls, parts: Iterable[Self]) -> Self:
        """Add up the sums of several workers."""
        whole = cls()
        for part in parts:
            whole.last_inference = max(whole.last_inference, part.last_inference)
            whole.samples += part.samples
            whole.success.join(part.success)
            whole.fail.join(part.fail)
            whole.queue.join(part.queue)
            whole.compute.join(part.compute)
            for size, sums in part.by_size.items():
                whole.by_size.setdefault(size, ComputeSums()).join(sums)
        return whole

    def as_model_stats(self, name: str, version: int) -> ModelStats:
        """Return them in the protocol's format."""
        batches: list[BatchStats] = [
            {
                "batch_size": size,
                "compute_input": sums.compute_input.as_duration(),
                "compute_infer": sums.compute_infer.as_duration(),
                "compute_output": sums.compute_output.as_duration(),
            }
            for size, sums in sorted(self.by_size.items())
        ]
        return {
            "name": name,
            "version": str(version),
            "last_inference": self.last_inference,
            "inference_count": self.samples,
            "execution_count": self.success.count,
            "inference_stats": {
                "success": self.success.as_duration(),
                "fail": self.fail.as_duration(),
                "queue": self.queue.as_duration(),
                "compute_input": self.compute.compute_input.as_duration(),
                "compute_infer": self.compute.compute_infer.as_duration(),
                "compute_output": self.compute.compute_output.as_duration(),
                "cache_hit": {"count": 0, "ns": 0},
                "cache_miss": {"count": 0, "ns": 0},
            },
            "batch_stats": batches,
        }


class InferStatistics:
    """The statistics of every version that has had a request; they go on when a version is loaded again."""

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self.versions: dict[tuple[str, int], VersionSums] = {}
        self.settle = settle  # counts the requests that were answered in batches and are not counted yet

    def count_success(self, model: Model, answer: AnswerRecord) -> None:
        """Count an answered request, and the duration of its phases since its body arrived.

        For a request that was split, only the last run counts as computing; the time before it counts as queueing.
        """
        self._count(model, answer.samples, answer.times, answer.times.arrived, time.perf_counter())

    def count_batched(self, batch: BatchRecord, answer: BatchedAnswer) -> None:
        """Count a request that was answered in a batch, whose times count in full for each of its requests."""
        batch.times.render_seconds = batch.ended - batch.times.run_ended
        self._count(batch.model, answer.samples, batch.times, answer.arrived, batch.ended)

    def _count(self, model: Model, samples: int, times: Times, arrived: float, ended: float) -> None:
        prepare = times.decode_seconds + times.encode_seconds
        sums = self._sums(model.name, model.version)
        sums.last_inference = (time.time_ns() - round((time.perf_counter() - ended) * NS)) // 10**6
        sums.samples += samples
        sums.success.add(ended - arrived)
        sums.queue.add(max(0.0, times.run_began - arrived - prepare))
        counted = [sums.compute]
        if samples in sums.by_size or len(sums.by_size) < MAX_SIZES:
            counted.append(sums.by_size.setdefault(samples, ComputeSums()))
        for each in counted:
            each.compute_input.add(prepare)
            each.compute_infer.add(times.run_ended - times.run_began)
            each.compute_output.add(times.render_seconds)

    def count_failure(self, name: str, version: int, seconds: float) -> None:
        """Count a request that got an error."""
        self._sums(name, version).fail.add(seconds)

    def sums_of(self, versions: Iterable[tuple[str, int]]) -> list[VersionSums]:
        """Return the sums of `versions`, which are (name, version) pairs."""
        self.settle()
        return [self.versions.get(key) or VersionSums() for key in versions]

    def _sums(self, name: str, version: int) -> VersionSums:
        return self.versions.setdefault((name, version), VersionSums())


def model_statistics(versions: Iterable[tuple[str, int]], sums: Iterable[VersionSums]) -> Statistics:
    """Return the sums of each of `versions` in the protocol's format."""
    return {"model_stats": [each.as_model_stats(*key) for key, each in zip(versions, sums, strict=True)]}
