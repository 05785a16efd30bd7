"""The messages of a session: events, values and times, kept until a state of the server has them behind it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from spikeserve.answers import Json, SessionState
from spikeserve.errors import InvalidEvents
from spikeserve.records import CLOCK, MAX_TIME, Events, EventsLike, events

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


def values(chunk: ValuesLike, entry: Entry) -> NDArray[np.float32]:
    """Return the entries to send of an array, (entries, *shape), or one entry alone; raises InvalidEvents."""
    try:
        array = np.asarray(chunk, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidEvents(f"values are no array of numbers: {error}") from error
    array = array[None] if array.shape == entry.shape else array
    if array.shape[1:] != entry.shape:
        what = "step" if entry.per_step else "window"
        raise InvalidEvents(
            f"values have shape {array.shape}, expected {entry.shape} for each {what}, and those after another"
        )
    return array


def is_values(chunk: object) -> TypeGuard[ValuesLike]:
    """Return whether this is an array of values, rather than of events."""
    return isinstance(chunk, (list, tuple)) or (isinstance(chunk, np.ndarray) and chunk.dtype.names is None)


MESSAGE_EVENTS = 2**13  # in one message: 64 KiB, which the server works on at once
NEAR = 2**31  # microseconds between two events from which on the clock of a record leaves open which way it went


@dataclass
class Message:
    """A message that may have to be sent again: events or values, or without them a time or the end."""

    content: bytes | str
    events: Events | None = None
    t: int | None = None
    values: Values | None = None

    @property
    def size(self) -> int:
        """How much memory it takes, in events: those of 8 bytes."""
        return len(self.events or ()) + (len(self.content) // 8 if self.values is not None else 0)

    def after(self, t: int, entry: int) -> Message | None:
        """Return the part behind a state at time `t`, which is before the entry `entry` of a stream of values."""
        if self.values is not None:
            values = self.values.from_entry(entry)
            return Message(values.content, values=values) if len(values) else None
        if self.events is None:
            return None if self.t is not None and self.t <= t else self
        left = self.events[self.events.t >= t]
        return Message(left.records.tobytes(), left) if len(left) else None


class Outbox:
    """Messages in their order, of which this connection was sent the first `sent`.

    `asked` has, for each state that is to come, how many of those were sent before it was asked for.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.size = 0  # how much memory they take, in events of 8 bytes
        self.sent = 0
        self.asked: deque[int] = deque()

    def add(self, message: Message) -> None:
        """Add a message at the end."""
        self.messages.append(message)
        self.size += message.size

    @property
    def pending(self) -> bool:
        """Whether there is a message that this connection was not sent."""
        return self.sent < len(self.messages)

    def forget(self, number: int, t: int, entry: int) -> None:
        """Drop what a state has behind it of the first `number` messages; see `Message.after`."""
        again = [left for each in self.messages[:number] if (left := each.after(t, entry)) is not None]
        self.messages[:number] = again
        self.size = sum(message.size for message in self.messages)
        self.sent -= number - len(again)
        self.asked = deque(each - number + len(again) for each in self.asked)


def cut_events(chunk: Events, clock: int | None, lateness: int) -> list[Events | int]:
    """Return events as messages, with the times between that their clock of 32 bits does not tell.

    Raises InvalidEvents for an event so far before the one before it that its clock would tell another time.
    """
    if not len(chunk):
        return []
    if int(chunk.t.max()) >= MAX_TIME:
        raise InvalidEvents(f"events: t is {chunk.t.max()}, expected less than {MAX_TIME}")
    steps = np.diff(chunk.t, prepend=chunk.t[0] if clock is None else clock)
    if int(steps.min()) <= -NEAR:
        at = int(steps.argmin())
        raise InvalidEvents(
            f"events: t is {chunk.t[at]}, which is {-steps[at] / 1e6:.0f} seconds before the time before it, expected "
            f"less than {NEAR / 1e6:.0f}"
        )
    jumps = set(np.flatnonzero(steps >= NEAR).tolist())
    if clock is None and int(chunk.t[0]) >= CLOCK:
        jumps.add(0)
    starts = sorted({*jumps, *range(0, len(chunk), MESSAGE_EVENTS)})
    parts: list[Events | int] = []
    for start, end in zip(starts, [*starts[1:], len(chunk)], strict=True):
        if start in jumps:
            parts.append(max(0, int(chunk.t[start]) - lateness))
        parts.append(chunk[start:end])
    return parts


Chunk: TypeAlias = EventsLike | ValuesLike | int
Source: TypeAlias = Iterable[Chunk] | EventsLike
AsyncSource: TypeAlias = AsyncIterable[Chunk] | Source


def items(source: Source) -> Iterable[Chunk]:
    """Return the items of a source; one array of events or values is one item."""
    return [source] if isinstance(source, (Events, np.ndarray, Mapping)) else source


async def async_items(source: AsyncSource) -> AsyncIterator[Chunk]:
    """Yield the items of a source, awaited or not."""
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in items(source):
            yield item


def chunks(item: Any, state: SessionState | None, now: int | None) -> Iterator[Events | ValuesLike | int]:
    """Yield what is to be sent of an item, in messages, without the events before the state. Raises InvalidEvents.

    `now` is the time that was sent last, from which the clock of records goes on.
    """
    if isinstance(item, (int, np.integer)):
        yield int(item)
        return
    if is_values(item):
        yield item
        return
    chunk = events(item, now)
    if state is not None and state.t is not None:
        chunk = chunk[chunk.t >= state.t]
    for start in range(0, len(chunk), MESSAGE_EVENTS):
        yield chunk[start : start + MESSAGE_EVENTS]
