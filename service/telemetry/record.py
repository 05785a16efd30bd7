"""Records of a request and its answer, from which the log, the metrics and the spans are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

PARENT, STATE = b"traceparent", b"tracestate"  # of W3C Trace Context
TIMING_WANTED = b"x-server-timing"  # the request's header; to write the answer's takes 3 % of a small one's time
TIMING = b"server-timing"
PARTS = b"decode;dur=%.3f, queue;dur=%.3f, encode;dur=%.3f, run;dur=%.3f, render;dur=%.3f"


class Model(Protocol):
    """A loaded model, as far as telemetry sees it.

    `layers` has the neurons of each layer that spikes, by its name; `dense` the synaptic operations of a sample whose
    every input and neuron is other than 0, once and for each step.
    """

    name: str
    version: int
    layers: Mapping[str, int]
    dense: tuple[int, int]

    @property
    def engine(self) -> Any:
        """Its engine."""


class Version(Protocol):
    """One version of a model and its state, as far as telemetry sees it: see `service.catalog.catalog.Version`."""

    name: str
    version: int
    error: str | None

    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def loading_seconds(self) -> float | None: ...  # noqa: D102
    @property
    def training_rates(self) -> Mapping[str, float]: ...  # noqa: D102


class Trace(NamedTuple):
    """The trace of a request: its number, its parent's context, if it has one, and the decision of the sampler."""

    number: int
    parent: Any
    decision: Any

    @property
    def id(self) -> str:
        """The number as 32 hexadecimal digits."""
        return f"{self.number:032x}"

    @property
    def sampled(self) -> bool:
        """Whether it has spans."""
        return bool(self.decision.decision.is_recording())


@dataclass
class Times:
    """When a request's body had arrived, was encoded, its first run began and its last one ended, by `perf_counter`.

    `decode_seconds` is how long decoding the body took.
    """

    arrived: float
    decode_seconds: float = 0.0
    encode_began: float = 0.0
    encode_ended: float = 0.0
    run_began: float = 0.0
    run_ended: float = 0.0

    @property
    def encode_seconds(self) -> float:
        """The seconds that encoding took."""
        return self.encode_ended - self.encode_began

    def timing(self, now: float) -> bytes:
        """Return the value of the header Server-Timing (W3C) of an answer that is rendered `now`.

        Its parts, in milliseconds, add up to the time since the body had arrived: `queue` is what is left before the
        run.
        """
        decode, encode = self.decode_seconds, self.encode_seconds
        queue = max(0.0, self.run_began - self.arrived - decode - encode)
        run, render = self.run_ended - self.run_began, now - self.run_ended
        return PARTS % (1e3 * decode, 1e3 * queue, 1e3 * encode, 1e3 * run, 1e3 * render)

    def ran(self, began: float, ended: float) -> None:
        """Count a run; a request of many samples has several, maybe side by side."""
        self.run_began = min(self.run_began, began) if self.run_ended else began
        self.run_ended = max(self.run_ended, ended)


class AnswerRecord(NamedTuple):
    """An answer's samples and time steps, the network's spikes and operations, and the times.

    `steps` are those that all samples together took, fewer than `samples` times `time_steps` where some ended early.
    """

    samples: int
    time_steps: int
    steps: int
    spikes_per_layer: Mapping[str, int]
    synaptic_operations: int
    times: Times


class Endpoint(Protocol):
    """One route to one version of a model, as far as telemetry sees it; `line` is a template of lines in the log.

    See `access.line_template`.
    """

    route: str
    labels: Mapping[str, str | int]
    line: str


class BatchedAnswer(NamedTuple):
    """An answer to one request of a batch; `started` says when its headers had arrived.

    `steps` are those that all its samples took.
    """

    endpoint: Endpoint
    request_id: bytes
    started: float
    samples: int
    steps: int
    synaptic_operations: int
    trace: Trace | None = None


class BatchRecord(NamedTuple):
    """Requests of one model that were answered as one batch, by `ended`; times are by `perf_counter`.

    `spikes` are each sample's, of each layer by its name.
    """

    model: Model
    time_steps: int
    times: Times
    ended: float
    spikes: Mapping[str, NDArray[np.int64]]
    answers: Sequence[BatchedAnswer]


@dataclass
class RequestRecord:
    """One request. `labels` are added to its log line, after the id, method, route, status and time.

    `error` is the type of an unexpected error, which is answered 500.
    """

    request_id: bytes
    labels: dict[str, str | int] = field(default_factory=dict)
    answer: AnswerRecord | None = None
    error: str = ""
