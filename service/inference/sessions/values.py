"""Windows of a stream of values: each is closed by the values that fill it, and time is counted in steps.

current        a value of each input for each step: a window has as many as it has steps
direct, rate   a value of each input for each window, which is held for all of its steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import EventCoder, Inputs, encode_next, normalise
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import FloatArray

MAX_VALUES = 2**20  # numbers of one message, or those of one step where that has more; they are checked at once


@dataclass(frozen=True)
class ValueWindow:
    """A closed window of `steps` steps, which ends `end` steps after the stream's begin.

    Its `values` are normalised: (steps, *input shape) for `current` coding, else (*input shape).
    """

    number: int
    end: int
    steps: int
    values: FloatArray

    @property
    def members(self) -> bytes:
        """Its content, as members of its line."""
        return b'"steps":%d' % self.steps

    def inputs(self, coder: EventCoder, behind: int, seed: int) -> Inputs:
        """Return it as a network's inputs, of a stream that has so many steps behind it."""
        return encode_next(self.values, coder.task, self.steps, seed, behind)


@dataclass
class ValueWindows:
    """Closes the windows of one stream, of `steps` steps each, for a model of `task`."""

    task: Spec
    steps: int
    number: int = 0
    start: int = 0  # steps before the open window
    origin: int = 0  # steps before the first window, or before the one that a state goes on with
    pending: int = 0  # entries of windows that are not closed, each of them for a step or a window
    _values: list[FloatArray] = field(default_factory=list)

    received, late, definition = 0, 0, None  # no events come

    def __post_init__(self) -> None:
        self.entries = self.steps if self.task.coding.per_step else 1  # of a window
        self.entry_values = math.prod(self.task.input.shape)
        self.max_numbers = max(MAX_VALUES, self.entry_values)  # of one message
        # The smallest part of a binary message: an entry of float32.
        self.record = "step" if self.task.coding.per_step else "window"
        self.record_bytes = self.entry_values * np.dtype(np.float32).itemsize

    @property
    def counts(self) -> dict[str, int]:
        """The content of all windows."""
        return {"steps": self.start}

    @property
    def pending_bytes(self) -> int:
        """The bytes of the values that wait for their window to close."""
        return self.pending * self.record_bytes

    def read(self, content: bytes) -> FloatArray:
        """Return a binary message's values (entries, *input shape); raises InvalidInput for a part of an entry."""
        if len(content) % self.record_bytes:
            raise InvalidInput(
                f"a message has {len(content)} bytes, expected {self.record_bytes} for each {self.record}: "
                f"{self.entry_values} values of float32"
            )
        return np.frombuffer(content, "<f4").reshape(-1, *self.task.input.shape)

    def add(self, values: NDArray[Any]) -> None:
        """Add raw values (entries, *input shape).

        Raises InvalidInput for another shape, a value out of range, and too many values.
        """
        shape = self.task.input.shape
        if values.size > self.max_numbers:
            raise InvalidInput(f"values has {values.size} numbers, expected at most {self.max_numbers} in one message")
        if not len(values):
            return
        if values.shape[1:] != shape:
            sent, expected = ("×".join(map(str, each)) for each in (values.shape[1:], shape))
            raise InvalidInput(f"each {self.record} of values has shape {sent}, expected {expected}")
        self._values.append(normalise(values, self.task.input, "values"))
        self.pending += len(values)

    def close(self) -> ValueWindow | None:
        """Return the next closed window, or None."""
        return self._take(self.entries) if self.pending >= self.entries else None

    def flush(self) -> ValueWindow | None:
        """Close the open window early, with the steps that it has, if it has any."""
        return self._take(self.pending) if self.pending else None

    def go_on(self, number: int, start: int | None, late: int = 0) -> None:  # noqa: ARG002  (no value is late)
        """Begin with window `number`, before which `start` steps lie, in place of the first."""
        self.number, self.start, self.origin = number, start or 0, start or 0

    def late_of(self, number: int) -> int:  # noqa: ARG002
        """Return 0: values have no times, so that none is late."""
        return 0

    def _take(self, entries: int) -> ValueWindow:
        values = self._values[0] if len(self._values) == 1 else np.concatenate(self._values)
        own, rest = values[:entries], values[entries:]
        self._values, self.pending = [rest] if len(rest) else [], len(rest)
        per_step = self.task.coding.per_step
        steps = entries if per_step else self.steps
        window = ValueWindow(self.number, self.start + steps, steps, own if per_step else own[0])
        self.number, self.start = self.number + 1, window.end
        return window
