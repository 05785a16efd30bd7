"""Events and samples as the client sends them are those that were given, as the server reads them."""

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve import InvalidEvents, events, read_events
from spikeserve.messages import cut_events
from spikeserve.models.coding.records import make_records, unwrapped
from spikeserve.models.spec import EventBinning
from spikeserve.requests import predict_calls, smallest
from spikeserve.service.inference.sessions.windows import Windows

columns = st.lists(
    st.tuples(st.integers(0, 2**40), st.integers(0, 2**16 - 1), st.integers(0, 2**15 - 1), st.booleans()), max_size=20
)


def read(content: bytes) -> np.ndarray[Any, Any]:
    """Return the array of an .npy file."""
    return np.load(io.BytesIO(content), allow_pickle=False)


@given(columns)
def test_records_are_those_that_the_server_makes(rows: list[tuple[int, int, int, bool]]) -> None:
    found = events(
        {"t": [r[0] for r in rows], "x": [r[1] for r in rows], "y": [r[2] for r in rows], "p": [r[3] for r in rows]}
    )
    t, x, y, p = (np.array([row[n] for row in rows], np.int64) for n in range(4))
    assert found.t.tolist() == t.tolist()
    assert found.records.tobytes() == make_records(t, x, y, p).tobytes()
    order = np.argsort(t, kind="stable")
    assert found.in_order().records.tobytes() == make_records(t[order], x[order], y[order], p[order]).tobytes()


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30), st.integers(0, 2**50))
def test_the_server_reads_the_times_that_were_given(gaps: list[int], start: int) -> None:
    # However long the silences are, and whenever the clock of 32 bits starts again.
    times = start + np.cumsum(3 * np.array(gaps))
    windows, found = Windows(EventBinning(step_us=2**31 - 1, sensor=(1,), window_steps=1), 1000), list[int]()
    for part in cut_events(events({"t": times, "unit": np.zeros(len(times), np.int64)}), None, 0):
        windows.advance(part) if isinstance(part, int) else windows.add(part.records)
        found += [t for window in iter(windows.close, None) for t in window.in_order()[1].tolist()]
    found += [t for window in iter(windows.flush, None) for t in window.in_order()[1].tolist()]
    assert found == times.tolist()


@given(st.lists(st.integers(0, 2**31 - 1), max_size=20), st.integers(0, 2**32 - 1))
def test_records_whose_clock_starts_again_are_counted_on(gaps: list[int], start: int) -> None:
    records = make_records(start + np.cumsum(np.array(gaps, np.int64)), 0)
    assert events(records).t.tolist() == unwrapped(records["t"], int(records["t"][0]) if len(records) else 0).tolist()


def test_records_that_come_after_others_are_counted_on_from_these() -> None:
    assert events(make_records([2**32 - 5], [0]), 3 * 2**32 - 9).t.tolist() == [3 * 2**32 - 5]
    assert events(make_records([4, 2], [0, 1]), 3 * 2**32 - 5).t.tolist() == [3 * 2**32 + 4, 3 * 2**32 + 2]
    assert events(make_records([2**32 - 5], [0]), 3 * 2**32 + 2).t.tolist() == [3 * 2**32 - 5]
    assert events(make_records([2, 2**32 - 3], [0, 1])).t.tolist() == [2**32 + 2, 2**32 - 3]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 255.0], "uint8"),
        ([-1.0, 1.0], "int8"),
        ([0, 256], "uint16"),
        ([-129, 0], "int16"),
        ([0, 65536], "int32"),
        (np.array([0, 65504], np.float16), "float16"),
        (np.array([0, np.inf], np.float16), "float16"),
        ([0, 2**31], "float32"),
        ([0.5, 1.0], "float32"),
        ([np.nan, 1.0], "float32"),
        ([True, False], "bool"),
    ],
)
def test_an_array_is_sent_in_the_smallest_type_that_holds_it(values: Any, kind: str) -> None:
    assert smallest(np.array(values)).dtype == kind


def test_a_long_array_that_is_nearly_empty_is_compressed() -> None:
    raster = np.zeros((8, 256, 12))
    raster[:, ::9, 3] = 1
    (call,) = predict_calls(raster, None, None, {"time_steps": 256, "return": ["raster", "membrane"]})
    assert call.path == "/predict?time_steps=256&return=raster,membrane"
    assert call.headers["content-encoding"] == "deflate"
    assert call.content is not None
    assert len(call.content) < raster.size / 20
    np.testing.assert_array_equal(read(zlib.decompress(call.content)), raster)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"t": [0.5], "unit": [0]}, "events: t of event 0 is 0.5, expected whole microseconds"),
        ({"t": [0, -1], "unit": [0, 0]}, "events: t of event 1 is -1, expected whole microseconds from 0"),
        ({"t": [0], "x": [0]}, "events has no field 'p' but t, x, expected t, x, y and p, or t and unit"),
        (np.zeros(3), "events is an array without fields, of shape (3,), expected t, x, y and p, or t and unit"),
        ([(0, 1)], "events are a list, expected an array with fields or a mapping of columns"),
    ],
)
def test_events_that_cannot_be_sent_are_named(given: Any, sentence: str) -> None:
    with pytest.raises(InvalidEvents) as caught:
        events(given)
    assert str(caught.value) == sentence


def test_samples_that_cannot_be_sent_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidEvents, match="inputs are an array of <U1, expected numbers"):
        predict_calls(["a"], None, None, {})
    with pytest.raises(InvalidEvents, match="inputs cannot be written as JSON"):
        predict_calls([{"t": [np.nan], "unit": [0]}], None, None, {})
    with pytest.raises(InvalidEvents, match=r"cannot be read as \.npy: No such file"):
        predict_calls(tmp_path / "none.npy", None, None, {})
    with pytest.raises(InvalidEvents, match="version is 3, but no model is named"):
        predict_calls([1], None, 3, {})


def test_a_files_events_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,x,y,polarity\n5,1,2,1\n3,4,5,0\n")
    found = read_events(tmp_path / "a.csv")
    assert found.t.tolist() == [3, 5]
    assert found.records.tobytes() == make_records([3, 5], [4, 1], [5, 2], [0, 1]).tobytes()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for name, content, sentence in (
        ("a.npy", b"nonsense", " cannot be read"),
        ("a.csv", b"t,unit\n-1,2\n", ": events: t of event 0 is -1, expected whole microseconds from 0"),
        ("a.log", b"", ": is of no kind that is known"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidEvents) as caught:
            read_events(tmp_path / name)
        assert str(caught.value).startswith(f"'{tmp_path / name}'{sentence}")
