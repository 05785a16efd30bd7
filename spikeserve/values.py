"""Values as a session takes them: an entry for each step, or for each window, of float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from spikeserve.answers import Json
from spikeserve.errors import InvalidEvents

ValuesLike: TypeAlias = NDArray[Any] | Sequence[Any]


@dataclass(frozen=True)
class Entry:
    """What one entry of a model's stream of values is: an array of `shape`, for a step or else for a whole window."""

    shape: tuple[int, ...]
    per_step: bool

    @classmethod
    def of(cls, card: Json) -> Entry:
        """Return it as the model's card says; raises InvalidEvents for a model whose sessions take none."""
        if card["coding"] not in ("current", "direct", "rate"):
            raise InvalidEvents(
                f"the model has {card['coding']} coding, expected current, direct or rate for values; events are an "
                "array with the fields t, x, y and p, or t and unit"
            )
        return cls(tuple(card["input"]["shape"]), card["coding"] == "current")


@dataclass(frozen=True, eq=False)
class Values:
    """Entries of a stream (entries, *shape) of float32, of which the first is the stream's entry `first`, from 0."""

    array: NDArray[np.float32]
    first: int

    def __len__(self) -> int:
        return len(self.array)

    @property
    def content(self) -> bytes:
        """The message that sends them: float32, little-endian."""
        return self.array.astype("<f4").tobytes()

    def from_entry(self, entry: int) -> Values:
        """Return those from an entry of the stream on."""
        behind = min(max(0, entry - self.first), len(self))
        return Values(self.array[behind:], self.first + behind) if behind else self


def values(given: ValuesLike, entry: Entry) -> NDArray[np.float32]:
    """Return the entries to send of an array, (entries, *shape), or one entry alone; raises InvalidEvents."""
    try:
        array = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidEvents(f"values are no array of numbers: {error}") from error
    array = array[None] if array.shape == entry.shape else array
    if array.shape[1:] != entry.shape:
        what = "step" if entry.per_step else "window"
        raise InvalidEvents(
            f"values have shape {array.shape}, expected {entry.shape} for each {what}, and those after another"
        )
    return array


def is_values(given: object) -> TypeGuard[ValuesLike]:
    """Return whether this is an array of values, rather than of events."""
    return isinstance(given, (list, tuple)) or (isinstance(given, np.ndarray) and given.dtype.names is None)
