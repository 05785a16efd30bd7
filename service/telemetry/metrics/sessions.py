"""The metrics of sessions."""

from __future__ import annotations

import collections
from typing import NamedTuple

from spikeserve.service.telemetry.metrics.families import Distribution, Families, Value

MODEL = "model"
LAGS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Counts(NamedTuple):
    """The metrics of one model's sessions that each window changes."""

    windows: Value
    events: Value
    late: Value
    lag: Distribution


class SessionMetrics(Families):
    """The metrics of all sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.open = self.gauge("sessions", "Sessions that are open.", MODEL)
        self.windows = self.counter("session_windows", "Windows that were answered.", MODEL)
        self.events = self.counter("session_events", "Events that sessions were sent.", MODEL)
        self.late = self.counter("session_late_events", "Events that came after their window was closed.", MODEL)
        self.refused = self.counter("sessions_refused", "Sessions that were refused, as too many were open.", MODEL)
        about = "Seconds from the message that closed a window to its line."
        self.lag = self.histogram("session_lag_seconds", about, MODEL, bounds=LAGS)
        self.by_model = tuple(self.families)
        self.ended = self.counter("sessions_ended", "Sessions that have ended, by the reason.", MODEL, "reason")
        # Of all models: no label, so that it is never dropped.
        self.bytes = Families()
        self.state_bytes = self.bytes.gauge("session_state_bytes", "Bytes of their states.").of()
        self.sessions = collections.Counter[str]()  # that are open, by model

    def counts(self, model: str) -> Counts:
        """Return the metrics of a model, to keep: looking each up takes longer than counting."""
        return Counts(self.windows.of(model), self.events.of(model), self.late.of(model), self.lag.of(model))

    def opened(self, model: str, by: int) -> None:
        """Add `by`, which may be negative, to the number of a model's open sessions."""
        self.sessions[model] += by

    def count_refused(self, model: str) -> None:
        """Count a session that was one too many."""
        self.refused.of(model).inc()

    def count_end(self, model: str, reason: str) -> None:
        """Count a session that has ended."""
        self.ended.of(model, reason).inc()

    def update(self, models: set[str]) -> None:
        """Export the sessions of each of `models`, even if it has none, and of each other model that has some.

        An alert needs to see an increase from 0.
        """
        self.sessions = +self.sessions  # keeps only positive counts
        exported = models | self.sessions.keys()
        self.keep({(model,) for model in exported})
        for model in exported:
            for family in self.by_model:
                family.of(model)
            self.open.of(model).set(self.sessions[model])
