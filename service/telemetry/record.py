"""What is told of a request and its answer: of these records the log, the metrics and the spans are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Named(Protocol):
    """An engine, as far as telemetry sees it."""

    @property
    def name(self) -> str:
        """Its name."""
        ...


class Model(Protocol):
    """A loaded model, as far as telemetry sees it. `layers` has the neurons of each layer that spikes, by its name."""

    name: str
    version: int
    layers: Mapping[str, int]

    @property
    def engine(self) -> Named:
        """What runs it."""
        ...


class VersionRecord(NamedTuple):
    """One version of a model as it stands: `state` in the words of GET /models."""

    model: str
    version: int
    state: str
    load_failed: bool


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
class AnswerRecord:
    """What an answer took: its samples and steps, what the network did for it, and when."""

    samples: int
    time_steps: int
    spikes_per_layer: Mapping[str, int]
    synaptic_operations: int | None
    times: Times


@dataclass
class RequestRecord:
    """One request. `labels` are what its line in the log says beside its id, method, route, status and time."""

    request_id: bytes
    labels: dict[str, str | int] = field(default_factory=dict)
    answer: AnswerRecord | None = None
