"""What one request may cost once it is read: samples, steps, values. Its bytes are bounded in `service.http.body`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from service.settings import Settings


@dataclass(frozen=True)
class Limits:
    """The most samples and time steps in a request, the most work of a layer and of all neurons, and of recording."""

    samples: int
    time_steps: int
    values: int
    neuron_steps: int
    recorded_values: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits that are set."""
        return cls(
            samples=settings.max_samples,
            time_steps=settings.max_time_steps,
            values=settings.max_values,
            neuron_steps=settings.max_neuron_steps,
            recorded_values=settings.max_recorded_values,
        )
