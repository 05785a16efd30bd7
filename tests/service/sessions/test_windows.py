"""Windows close by time stamps: out of order, late, silent, over the end of the clock."""

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.models.coding.records import Records, make_records
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventBinning, Origin
from spikeserve.service.inference.sessions.windows import MAX_GAP, MAX_PENDING, TOLD, Window, Windows
from tests import held

BINNING = EventBinning(step_us=1000, sensor=(4, 2))


def closed(windows: Windows) -> list[Window]:
    return list(iter(windows.close, None))


def test_the_first_window_begins_at_time_0_where_the_model_says_so() -> None:
    windows = Windows(BINNING.model_copy(update={"origin": Origin.ZERO}), steps=1)
    windows.add(make_records([2100], [0]))
    assert [(window.start, len(window.events)) for window in closed(windows)] == [(0, 0), (1000, 0)]


def test_a_time_far_ahead_is_refused() -> None:
    windows = Windows(BINNING, steps=1)
    windows.add(make_records([0], [0]))
    ahead = (MAX_GAP + 1) * 1000
    with pytest.raises(InvalidInput, match=f"t: {ahead} would close {MAX_GAP + 1} windows at once, expected at most"):
        windows.advance(ahead)


def test_as_many_events_wait_as_are_allowed() -> None:
    windows = Windows(BINNING, steps=1)
    windows.add(make_records(np.zeros(MAX_PENDING), 0))
    with pytest.raises(InvalidInput, match=f"events: {MAX_PENDING + 1} wait for their windows to close, expected"):
        windows.add(make_records([0], [0]))


Seen = tuple[int, int, list[int], list[Any], int]


def seen(found: list[Window]) -> list[Seen]:
    return [
        (each.number, each.start, each.in_order()[1].tolist(), each.in_order()[0].tolist(), each.late) for each in found
    ]


def records_of(events: list[tuple[int, int]]) -> Records:
    """Return events (t, x) as a camera's records, with a row and a polarity."""
    t, x = np.array(events, np.int64).reshape(-1, 2).T
    return make_records(t, x, x // 2, x % 2)


def ended(windows: Windows) -> list[Window]:
    return closed(windows) + list(iter(windows.flush, None))


def one_by_one(events: list[tuple[int, int]], length: int, lateness: int) -> tuple[list[Seen], int]:
    """Sort events (t, x) into windows by the definition, each after the other; also return how many are late in all."""
    start, latest, late, told, waiting, found = None, 0, 0, 0, list[tuple[int, int]](), list[Seen]()

    def close(start: int) -> int:
        nonlocal told, waiting
        own = sorted((each for each in waiting if each[0] < start + length), key=lambda each: each[0])
        waiting = [each for each in waiting if each[0] >= start + length]
        found.append((len(found), start, [t for t, _ in own], records_of(own).tolist(), late - told))
        told = late
        return start + length

    for event in events:
        latest = max(latest, event[0])
        if start is not None and event[0] < start:
            late += 1
        else:
            waiting.append(event)
        if start is None and latest - lateness >= min(waiting)[0]:
            start = min(waiting)[0]
        while start is not None and latest - lateness >= start + length:
            start = close(start)
    start = min(waiting)[0] if start is None else start
    while waiting:
        start = close(start)
    return found, late


events_and_cuts = (
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3)), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
)


def parts_of(events: list[tuple[int, int]], cuts: list[int]) -> Iterator[list[tuple[int, int]]]:
    places = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    yield from (events[first:last] for first, last in pairwise(places) if first < last)


@given(*events_and_cuts, st.integers(1, 5), st.integers(0, 8000), st.booleans())
def test_windows_and_late_events_are_those_of_the_definition_wherever_messages_are_cut(
    events: list[tuple[int, int]], cuts: list[int], steps: int, lateness: int, closes: bool
) -> None:
    windows, found = Windows(BINNING, steps, lateness), []
    for part in parts_of(events, cuts):
        windows.add(records_of(part))
        found += closed(windows) if closes else []
    found += ended(windows)
    assert (seen(found), windows.late) == one_by_one(events, steps * 1000, lateness)
    assert windows.received + windows.late == len(events)
    assert windows.pending_bytes == 0


def test_many_windows_between_the_last_events_are_refused_at_the_end() -> None:
    windows = Windows(BINNING, steps=1, lateness=2**31 - 1)
    windows.add(make_records([0, (MAX_GAP + 2) * 1000], 0))
    with pytest.raises(InvalidInput, match=f"would close {MAX_GAP + 1} windows at once"):
        ended(windows)


def test_a_thousand_windows_that_tell_of_late_events_leave_nothing_behind() -> None:
    windows = Windows(BINNING, steps=1)

    def come(numbers: range) -> None:
        for number in numbers:
            windows.add(make_records([1000 * number, 0], [0, 0]))
            assert [window.late for window in closed(windows)] == [int(number > 1)]

    windows.add(make_records([0], [0]))
    come(range(1, 2 * TOLD))
    with held.no_growth(500):
        come(range(2 * TOLD, 2 * TOLD + 1000))


def test_events_that_wait_take_the_memory_that_is_counted() -> None:
    # One event in each of 20,000 windows: a view of its message would hold all of the others as well.
    windows = Windows(BINNING.model_copy(update={"origin": Origin.ZERO}), steps=1, lateness=2**31 - 1)
    tracemalloc.start()
    for first in range(0, 20_000, 4000):
        windows.add(make_records(1000 * np.arange(first, first + 4000), 0))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert windows.pending == 20_000
    assert taken <= windows.pending_bytes <= 4 * taken
