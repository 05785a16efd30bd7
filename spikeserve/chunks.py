"""What a stream is given, as what its session sends: chunks of events, and times."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from spikeserve.answers import SessionState
from spikeserve.messages import MESSAGE_EVENTS
from spikeserve.records import Events, EventsLike, events
from spikeserve.values import ValuesLike, is_values

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
    given = events(item, now)
    if state is not None and state.t is not None:
        given = given[given.t >= state.t]
    for start in range(0, len(given), MESSAGE_EVENTS):
        yield given[start : start + MESSAGE_EVENTS]
