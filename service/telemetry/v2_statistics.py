"""The statistics extension of the Open Inference Protocol: how often and how long each phase of its requests took.

Only the event loop counts, so that no lock is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, TypeAlias

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


COMPUTE = ("compute_input", "compute_infer", "compute_output")
PHASES = ("success", "fail", "queue", *COMPUTE)
Sums: TypeAlias = dict[str, Duration]  # by phase


def _sums(phases: Iterable[str]) -> Sums:
    return {phase: {"count": 0, "ns": 0} for phase in phases}


def _count(sums: Sums, seconds: Mapping[str, float]) -> None:
    """Count one duration of each phase of the sums."""
    for phase, duration in sums.items():
        if phase in seconds:
            duration["count"] += 1
            duration["ns"] += round(seconds[phase] * NS)


def _join(sums: Sums, other: Sums) -> None:
    for phase, duration in other.items():
        sums[phase]["count"] += duration["count"]
        sums[phase]["ns"] += duration["ns"]


@dataclass
class VersionSums:
    """The sums of one version of one model: of all requests by phase, and of each batch size."""

    last_inference: int = 0
    samples: int = 0
    phases: Sums = field(default_factory=lambda: _sums(PHASES))
    by_size: dict[int, Sums] = field(default_factory=dict)

    @classmethod
    def summed(cls, parts: Iterable[Self]) -> Self:
        """Add up the sums of several workers."""
        whole = cls()
        for part in parts:
            whole.last_inference = max(whole.last_inference, part.last_inference)
            whole.samples += part.samples
            _join(whole.phases, part.phases)
            for size, sums in part.by_size.items():
                _join(whole.by_size.setdefault(size, _sums(COMPUTE)), sums)
        return whole

    def as_model_stats(self, name: str, version: int) -> ModelStats:
        """Return them in the protocol's format."""
        stats: Any = self.phases | _sums(("cache_hit", "cache_miss"))
        batches: list[Any] = [{"batch_size": size} | sums for size, sums in sorted(self.by_size.items())]
        return {
            "name": name,
            "version": str(version),
            "last_inference": self.last_inference,
            "inference_count": self.samples,
            "execution_count": self.phases["success"]["count"],
            "inference_stats": stats,
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
        seconds = {
            "success": ended - arrived,
            "queue": max(0.0, times.run_began - arrived - prepare),
            "compute_input": prepare,
            "compute_infer": times.run_ended - times.run_began,
            "compute_output": times.render_seconds,
        }
        _count(sums.phases, seconds)
        if samples not in sums.by_size and len(sums.by_size) < MAX_SIZES:
            sums.by_size[samples] = _sums(COMPUTE)
        if samples in sums.by_size:
            _count(sums.by_size[samples], seconds)

    def count_failure(self, name: str, version: int, seconds: float) -> None:
        """Count a request that got an error."""
        _count(self._sums(name, version).phases, {"fail": seconds})

    def sums_of(self, versions: Iterable[tuple[str, int]]) -> list[VersionSums]:
        """Return the sums of `versions`, which are (name, version) pairs."""
        self.settle()
        return [self.versions.get(key) or VersionSums() for key in versions]

    def _sums(self, name: str, version: int) -> VersionSums:
        return self.versions.setdefault((name, version), VersionSums())


def model_statistics(versions: Iterable[tuple[str, int]], sums: Iterable[VersionSums]) -> Statistics:
    """Return the sums of each of `versions` in the protocol's format."""
    return {"model_stats": [each.as_model_stats(*key) for key, each in zip(versions, sums, strict=True)]}
