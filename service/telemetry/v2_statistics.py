"""Where the time of this protocol's requests went, as its statistics extension tells it.

Only the event loop counts, so that nothing is locked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from service.inference.v2.schemas import BatchStats, Duration, ModelStats, Statistics

NS = 10**9
MOST_SIZES = 256  # batch sizes that are told apart; the sizes of later ones are counted in the sums alone


@dataclass(frozen=True)
class PhaseSeconds:
    """The seconds that a request waited, and those of its reading and coding, the engine and writing.

    A run counts in full for each request that shares it; of a request that was split, only the last run is no waiting.
    """

    queue: float
    compute_input: float
    compute_infer: float
    compute_output: float


@dataclass
class Sum:
    """How often something took how long."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count it once more."""
        self.count += 1
        self.ns += round(seconds * NS)

    def join(self, other: Self) -> None:
        """Count what another one has counted."""
        self.count += other.count
        self.ns += other.ns

    def as_duration(self) -> Duration:
        """Return it as the protocol tells it."""
        return {"count": self.count, "ns": self.ns}


@dataclass
class ComputeSums:
    """The sums of the parts of computing, of one batch size or of all."""

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
        """Return the sums of what several workers have counted."""
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
        """Return them as the protocol tells them."""
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


class RequestStats:
    """The statistics of every version that was ever asked; a version that is loaded again goes on counting."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, int], VersionSums] = {}

    def count_success(self, name: str, version: int, samples: int, seconds: float, phases: PhaseSeconds) -> None:
        """Count a request that was answered."""
        sums = self._sums(name, version)
        sums.last_inference = time.time_ns() // 10**6
        sums.samples += samples
        sums.success.add(seconds)
        sums.queue.add(phases.queue)
        counted = [sums.compute]
        if samples in sums.by_size or len(sums.by_size) < MOST_SIZES:
            counted.append(sums.by_size.setdefault(samples, ComputeSums()))
        for each in counted:
            each.compute_input.add(phases.compute_input)
            each.compute_infer.add(phases.compute_infer)
            each.compute_output.add(phases.compute_output)

    def count_failure(self, name: str, version: int, seconds: float) -> None:
        """Count a request that got an error."""
        self._sums(name, version).fail.add(seconds)

    def sums_of(self, versions: Iterable[tuple[str, int]]) -> list[VersionSums]:
        """Return the sums of `versions`, (name, version) each."""
        return [self.versions.get(key) or VersionSums() for key in versions]

    def _sums(self, name: str, version: int) -> VersionSums:
        return self.versions.setdefault((name, version), VersionSums())


def model_statistics(versions: Iterable[tuple[str, int]], sums: Iterable[VersionSums]) -> Statistics:
    """Return the sums of each of `versions` as the protocol tells them."""
    return {"model_stats": [each.as_model_stats(*key) for key, each in zip(versions, sums, strict=True)]}
