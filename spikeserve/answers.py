"""What the server answers, as typed objects."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.errors import InvalidEvents

Json: TypeAlias = Mapping[str, Any]

ARRAYS = {"probabilities": np.float64, "values": np.float64, "spike_counts": np.int64}


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one sample. A regression has `values` in place of a class; the other fields are then None."""

    model: str
    version: int
    time_steps: int
    spike_counts: NDArray[np.int64]  # (classes,)
    class_index: int | None = None
    label: str | None = None
    probabilities: NDArray[np.float64] | None = None  # (classes,)
    values: NDArray[np.float64] | None = None  # (values,), see `names` and `units`
    synaptic_operations: int | None = None
    steps_used: int | None = None  # with `stop`, the steps that the sample took
    names: list[str] | None = None
    units: list[str] | None = None
    spikes_per_node: dict[str, int] | None = None
    raster: dict[str, dict[str, list[int]]] | None = None
    membrane: dict[str, list[list[float]]] | None = None
    more: Json = field(default_factory=dict)  # fields of a newer server

    @classmethod
    def all_of(cls, answer: Json) -> list[Self]:
        """Return the predictions of an answer, in the order of its samples."""
        of_all: dict[str, Any] = {
            name: answer.get(name) for name in ("model", "version", "time_steps", "names", "units")
        }
        return [cls(**of_all, **_fields(each, cls.__dataclass_fields__)) for each in answer["predictions"]]


def _fields(answer: Json, known: Collection[str]) -> dict[str, Any]:
    """Return a prediction's fields by their names: numbers as arrays, and under `more` those that are not known."""
    arrays = {name: np.array(answer[name], kind) for name, kind in ARRAYS.items() if answer.get(name) is not None}
    more = {name: value for name, value in answer.items() if name not in known}
    return {name: value for name, value in answer.items() if name in known} | arrays | {"more": more}


@dataclass(frozen=True)
class Window:
    """The answer to one window of a session.

    Times are microseconds of the stream. Of a session of values they are steps, and there are no events.
    """

    window: int  # its number, from 0
    t: int  # its end
    window_counts: list[int]  # output spikes in this window, by class
    spike_counts: list[int]  # output spikes since the session began, by class
    synaptic_operations: int
    lag_ms: float  # from the message that closed it to its answer, on the server
    events: int = 0  # that it held
    late: int = 0  # events that came after their window was closed, since the window before; they were dropped
    steps: int | None = None  # of a window of values
    class_index: int | None = None
    label: str | None = None
    margin: float | None = None  # by how much the greatest score exceeds the second greatest
    scores: list[float] | None = None  # what the class is read from, where that is not `spike_counts`

    @classmethod
    def of(cls, line: Json) -> Self:
        """Return the window of a line; fields of a newer server are left out."""
        return cls(**{name: line[name] for name in cls.__dataclass_fields__ if name in line})


@dataclass(frozen=True)
class SessionState:
    """A session's state at the end of a window, with all that going on from it takes: keep it as `to_json` text.

    Events from `t` on, in microseconds of the stream, are to be sent again; None is before the first window.
    """

    state: str
    window: int
    t: int | None
    model: str
    version: int | None = None
    options: dict[str, str] = field(default_factory=dict)  # of the session: step_us and others

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the output of `to_json`; raises InvalidEvents for other text."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise InvalidEvents(f"the state is no text of SessionState.to_json: {error}") from error


@dataclass(frozen=True)
class Summary:
    """What a session was, at its end: its windows, and the events that came in time and too late."""

    windows: int
    events: int
    late: int
