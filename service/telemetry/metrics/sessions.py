"""The metrics of sessions."""

from __future__ import annotations

import collections
from collections import defaultdict
from functools import partial
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MODEL = ("model",)
LAGS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Counts(NamedTuple):
    """The metrics of one model's sessions that each window changes."""

    windows: Counter
    events: Counter
    late: Counter
    lag: Histogram


class SessionMetrics:
    """The metrics of all sessions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, labelnames=MODEL, registry=registry)
        self.open = Gauge("spikeserve_sessions", "Sessions that are open.", MODEL, registry=registry)
        self.state_bytes = Gauge("spikeserve_session_state_bytes", "Bytes of their states.", registry=registry)
        self.windows = counter("spikeserve_session_windows", "Windows that were answered.")
        self.events = counter("spikeserve_session_events", "Events that sessions were sent.")
        self.late = counter("spikeserve_session_late_events", "Events that came after their window was closed.")
        about = "Sessions that were refused, as too many were open."
        self.refused = counter("spikeserve_sessions_refused", about)
        about = "Sessions that have ended, by the reason."
        self.ended = Counter("spikeserve_sessions_ended", about, (*MODEL, "reason"), registry=registry)
        about = "Seconds from the message that closed a window to its line."
        self.lag = Histogram("spikeserve_session_lag_seconds", about, MODEL, buckets=LAGS, registry=registry)
        self.by_model = (self.windows, self.events, self.late, self.refused, self.lag)
        self.sessions = collections.Counter[str]()  # that are open, by model
        self.reasons: defaultdict[str, set[str]] = defaultdict(set)  # for which sessions of a model have ended
        self.exported: set[str] = set()  # models that have metrics

    def counts(self, model: str) -> Counts:
        """Return the metrics of a model, to keep: looking each up takes longer than counting."""
        windows, events, late = (metric.labels(model) for metric in (self.windows, self.events, self.late))
        return Counts(windows, events, late, self.lag.labels(model))

    def opened(self, model: str, by: int) -> None:
        """Add `by`, which may be negative, to the number of a model's open sessions."""
        self.exported.add(model)
        self.sessions[model] += by
        self.open.labels(model).set(self.sessions[model])

    def count_refused(self, model: str) -> None:
        """Count a session that was one too many."""
        self.exported.add(model)
        self.refused.labels(model).inc()

    def count_end(self, model: str, reason: str) -> None:
        """Count a session that has ended."""
        self.reasons[model].add(reason)
        self.ended.labels(model, reason).inc()

    def update(self, models: set[str]) -> None:
        """Export the sessions of each of `models`, even if it has none, and of each other model that has some.

        An alert needs to see an increase from 0. The metrics of other models are dropped, since they would add up as
        models come and go.
        """
        self.sessions = +self.sessions  # keeps only positive counts
        exported = models | self.sessions.keys()
        for model in self.exported - exported:
            for metric in (*self.by_model, self.open):
                metric.remove(model)
            for reason in self.reasons.pop(model, ()):
                self.ended.remove(model, reason)
        self.exported = exported
        for model in exported:
            for metric in self.by_model:
                metric.labels(model)
            self.open.labels(model).set(self.sessions[model])
