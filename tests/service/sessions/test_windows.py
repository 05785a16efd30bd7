"""Windows close by time stamps: out of order, late, silent, over the end of the clock."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.models.coding.records import make_records
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventBinning, Origin
from spikeserve.service.inference.sessions.windows import MAX_GAP, MAX_PENDING, Window, Windows

BINNING = EventBinning(step_us=1000, sensor=(4,))


def closed(windows: Windows) -> list[Window]:
    return list(iter(windows.close, None))


def test_an_event_at_the_end_of_a_window_closes_it_and_belongs_to_the_next() -> None:
    windows = Windows(BINNING, steps=2)
    windows.add(make_records([500, 2499], [0, 1]))
    assert closed(windows) == []
    windows.add(make_records([2500], [2]))
    (window,) = closed(windows)
    assert (window.number, window.start, window.end) == (0, 500, 2500)
    assert window.records["x"].tolist() == [0, 1]
    rest = windows.flush()
    assert rest is not None
    assert (rest.number, rest.start, rest.records["x"].tolist()) == (1, 2500, [2])
    assert windows.flush() is None


def test_events_of_a_window_may_come_in_any_order() -> None:
    windows = Windows(BINNING, steps=2)
    windows.add(make_records([0, 1900, 700], [0, 1, 2]))
    windows.add(make_records([100, 2000], [3, 0]))
    (window,) = closed(windows)
    assert window.times.tolist() == [0, 100, 700, 1900]
    assert window.records["x"].tolist() == [0, 3, 2, 1]


def test_an_event_of_a_closed_window_is_late() -> None:
    windows = Windows(BINNING, steps=1)
    windows.add(make_records([0, 1500], [0, 0]))
    assert len(closed(windows)) == 1
    windows.add(make_records([999, 1000], [1, 1]))
    assert (windows.late, windows.received) == (1, 3)
    rest = windows.flush()
    assert rest is not None
    assert rest.times.tolist() == [1000, 1500]


def test_silence_closes_windows_without_events() -> None:
    windows = Windows(BINNING, steps=1)
    windows.add(make_records([0], [0]))
    windows.advance(3000)
    assert [len(window.records) for window in closed(windows)] == [1, 0, 0]


def test_the_clock_of_32_bits_starts_again_within_a_stream() -> None:
    windows = Windows(BINNING, steps=1)
    windows.add(make_records([2**32 - 500], [0]))
    windows.add(make_records([2**32 + 400, 2**32 + 600], [1, 2]))
    (window,) = closed(windows)
    assert (window.start, window.end) == (2**32 - 500, 2**32 + 500)
    assert window.times.tolist() == [2**32 - 500, 2**32 + 400]


def test_the_first_window_begins_at_time_0_where_the_model_says_so() -> None:
    windows = Windows(BINNING.model_copy(update={"origin": Origin.ZERO}), steps=1)
    windows.add(make_records([2100], [0]))
    assert [(window.start, len(window.records)) for window in closed(windows)] == [(0, 0), (1000, 0)]


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


@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 3)), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
    st.integers(1, 5),
)
def test_every_event_is_in_its_window_or_late_however_the_stream_is_cut(
    events: list[tuple[int, int]], cuts: list[int], steps: int
) -> None:
    windows, found = Windows(BINNING, steps), []
    places = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    for first, last in pairwise(places):
        windows.add(make_records(*zip(*events[first:last], strict=True)) if last > first else make_records([], []))
        found += closed(windows)
    while (window := windows.flush()) is not None:
        found.append(window)
    assert [window.number for window in found] == list(range(len(found)))
    for window in found:
        assert ((window.times >= window.start) & (window.times < window.end)).all()
        assert window.end - window.start == steps * 1000
    assert sum(len(window.records) for window in found) == windows.received
    assert windows.received + windows.late == len(events)
