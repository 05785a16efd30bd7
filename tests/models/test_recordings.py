"""Files of recordings: every format gives the same columns, a format is known by its beginning, faults get a sentence.

The service, training and the client read by this room; their tests see that each makes of the columns what it needs.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding.records import make_records
from spikeserve.models.errors import InvalidInput
from spikeserve.models.recordings import files
from spikeserve.models.recordings.files import file_format, read_events

EVENTS = [(5_000, 3, 0, 1), (15_000, 0, 2, 0), (30_000, 1, 1, 1)]
COLUMNS = {name: np.array(column) for name, column in zip("txyp", zip(*EVENTS, strict=True), strict=True)}
CAMERA = np.array(EVENTS, [("time", "<i8"), ("x", "<u2"), ("y", ">i4"), ("on", "?")])
LATE = make_records(COLUMNS["t"] + 2**32 - 10_000, COLUMNS["x"], COLUMNS["y"], COLUMNS["p"])  # the clock starts again


def text(head: str, separator: str = ",", *, off: int = 0) -> Callable[[Path], object]:
    """Write the events as text, with a number of one's own for those that are off."""
    lines = [separator.join(map(str, [t, x, y, p or off])) for t, x, y, p in EVENTS]
    return lambda path: path.with_suffix(".csv").write_text(head + "\n".join([*lines, ""]))


def faery(suffix: str, events: list[tuple[int, ...]] = EVENTS, **how: Any) -> Callable[[Path], object]:  # type: ignore[assignment]
    """Write events by the package faery."""

    def write(path: Path) -> None:
        package = pytest.importorskip("faery", reason="faery is not installed here: it is of the extra 'events'")
        array = np.array(events, package.EVENTS_DTYPE)
        package.events_stream_from_array(array, dimensions=(10, 12)).to_file(path.with_suffix(suffix), **how)

    return write


FILES: dict[str, Callable[[Path], object]] = {
    "structured": lambda path: np.save(path.with_suffix(".npy"), CAMERA),
    "records": lambda path: np.save(path.with_suffix(".npy"), LATE),
    "npz": lambda path: np.savez(path.with_suffix(".npz"), **COLUMNS, other=np.array("a note")),  # type: ignore[arg-type]
    "csv": text("t,x,y,p\n"),
    "csv, semicolons": text('"timestamp"; "x"; "y"; "polarity"\n', ";"),
    "csv, tabs and signs": text("T\tX\tY\tP\n", "\t", off=-1),
    "csv, no names": text(""),
    "csv, a blank line and a note": lambda path: path.with_suffix(".csv").write_text(
        "note,t,x,y,p\n\n" + "".join(f"a b,{t}.0,{x},{y},{p}\n" for t, x, y, p in EVENTS)
    ),
    "csv of faery": faery(".csv"),  # whose names are t,x@10,y@12,on
    "aedat4": faery(".aedat4"),
    "aedat4, zstd": faery(".aedat4", compression=("zstd", 3)),
    "evt2": faery(".raw", version="evt2"),
    "evt3": faery(".RAW", version="evt3", file_type="evt"),
    "dat1": faery(".dat", version="dat1"),
    "dat2": faery(".dat", version="dat2"),
    "es": faery(".es"),
}


TALLIES = """
from spikeserve.models.door import Plugin
SURE = {".tally": 1, ".csv": 0.5, ".log": 0}
def guess(path): return SURE[path.suffix] if path.suffix else path.read_bytes().startswith(b"dict")
PLUGINS = (Plugin("reader", "tally", ":read", "tallies", guess=guess),)
def read(path): return eval(path.read_text())
"""


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_columns(name: str, tmp_path: Path) -> None:
    FILES[name](tmp_path / "a")
    (path,) = tmp_path.iterdir()
    found = read_events(path)
    assert {field: column.dtype for field, column in found.items()} == dict.fromkeys("tpyx", np.dtype(np.int64))
    assert (found["t"] - found["t"][0]).tolist() == [0, 10_000, 25_000]
    assert (found["p"] > 0).tolist() == [True, False, True]
    assert (found["x"].tolist(), found["y"].tolist()) == ([3, 0, 1], [0, 2, 1])
    if path.suffix not in (".npy", ".npz", ".csv"):
        content = path.read_bytes()
        assert file_format(content) == files.SUFFIXES[path.suffix.lower()]


@pytest.mark.parametrize("suffix", [".aedat4", ".raw", ".es"])
def test_a_file_without_events_is_silence(suffix: str, tmp_path: Path) -> None:
    faery(suffix, events=[])(tmp_path / "a")
    found = read_events(tmp_path / f"a{suffix}")
    assert {name: len(column) for name, column in found.items()} == dict.fromkeys("tpyx", 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("t,unit\n7,3\n9,0\n", {"t": [7, 9], "unit": [3, 0]}),
        ("7,3\n9,0\n", {"t": [7, 9], "unit": [3, 0]}),
        ("t,x,y\n1,2,3\n", {"t": [1], "y": [3], "x": [2]}),  # a camera of one polarity
        ("1,2,3\n", {"t": [1], "y": [3], "x": [2]}),
        ("t,unit\n", {"t": [], "unit": []}),
        ("t x y p\n5  1 2 0\n", {"t": [5], "p": [0], "y": [2], "x": [1]}),
        ("5 1 2 0\n", {"t": [5], "p": [0], "y": [2], "x": [1]}),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a"])
def test_units_and_one_polarity_are_columns_too(
    content: str, expected: dict[str, Any], name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    assert {name: column.tolist() for name, column in read_events(tmp_path / name).items()} == expected


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "t,x,y,q\n1,2,3,4\n", " has no field 'p' but t, x, y, q, expected t, x, y and p, or t and unit"),
        ("a.csv", "x,unit\n1,2\n", " has no field 't' but x, unit"),
        ("a.csv", "", " has no field 't'"),
        ("a.csv", "t,unit\n0.5,2\n", ": t of event 0 is 0.5, expected whole microseconds"),
        ("a.csv", "t,unit\n1,2\n1,-2\n", ": unit of event 1 is -2, expected a whole number from 0 to 65535"),
        ("a.csv", "t,unit\n1,70000\n", ": unit of event 0 is 70000, expected a whole number from 0 to 65535"),
        ("a.csv", "t,unit\n1,nan\n", ": unit of event 0 is nan, expected a whole number"),
        ("a.csv", "t,unit\n1,2,3\n", ": has 3 columns under 2 names in its first line"),
        ("a.csv", "t,unit\n1,2\n1\n", " cannot be read as CSV: "),
        ("a.csv", "t,unit\n1,two\n", " cannot be read as CSV: could not convert string 'two'"),
        ("a.npy", np.zeros((4, 4)), r" is an array without fields, of shape \(4, 4\), expected t, x, y and p"),
        ("a.npy", np.array([(0.5, 1)], [("t", "<f2"), ("unit", "<i4")]), ": t is float16, which holds no whole num"),
        ("a.npy", np.array([{"t": 1}], object), " cannot be read as NPY: Object arrays cannot be loaded"),
        ("a.npy", "junk", " cannot be read as NPY: "),
        ("a.npz", {"t": np.arange(3), "unit": np.arange(2)}, ": 3 t for 2 unit, expected as many of both"),
        ("a.npz", {"t": np.arange(3), "unit": np.array(["a", "b", "c"])}, ": unit is <U1 of 1 axes, expected one axis"),
        ("a.npz", {"events": np.arange(3)}, " has no field 't' but events"),
        ("a.npz", {"t": np.arange(9), "unit": np.arange(9)}, ": its arrays have 400 bytes, expected at most 300"),
        ("a.npz", "no zip", " cannot be read as NPZ: "),
        ("a.aedat4", "junk" * 20, " cannot be read as AEDAT: "),
        ("a.dat", "", " cannot be read as DAT: "),
        ("a.es", "junk" * 20, " cannot be read as ES: "),
        ("a.log", "", ": is of no kind that is known, expected .npy, .npz, .csv, .txt, .aedat"),
    ],
)
def test_a_file_that_holds_no_events_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, sentence: str
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 300 if "bytes" in sentence else 2**28)
    path = tmp_path / name
    match content:
        case str():
            path.write_text(content)
        case dict():
            np.savez(path, **content)
        case _:
            np.save(path, content)
    with pytest.raises(InvalidInput, match=rf"^'{path}'{sentence}[^\n]*$"):
        read_events(path)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.tally", "dict(t=[5, 7], unit=[0, 1])", ""),
        ("a", "dict(t=[5, 7], unit=[0, 1])", ""),  # as on standard input: known by its first bytes
        ("a.tally", "1 / 0", " cannot be read as tally: division by zero"),
        ("a.tally", "dict(t=[5, 7], unit=[0])", ": 2 t for 1 unit, expected as many of both"),
        ("a.tally", "dict(t=[5, 7, 8], unit=[0, 1, 1])", ": holds more than 2 events, expected at most as many"),
        ("a.tally", "dict(t=[5, 7, 8, 9], unit=[0] * 4)", ": its arrays have 64 bytes, expected at most 60"),
        ("a.tally", "dict(t=[5, 7]," + " " * 40 + "unit=[0, 1])", ": it has 66 bytes, expected at most 60"),
        ("a.csv", "#dict", " may be CSV or tally, expected one reader alone, as SPIKESERVE_.*: NPY, .*, tally"),
        ("a.log", "dict", ": is of no kind that is known, expected .npy, .* .es, tally"),
    ],
)
def test_a_plugins_reader_is_held_to_what_ours_are(
    tmp_path: Path, plugins_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, sentence: str
) -> None:
    (plugins_dir / "tallies.py").write_text(TALLIES)
    monkeypatch.setattr(files, "MAX_EVENTS", 2)
    monkeypatch.setattr(files, "MAX_BYTES", 60)
    (path := tmp_path / name).write_text(content)
    if not sentence:
        assert {name: column.tolist() for name, column in read_events(path).items()} == {"t": [5, 7], "unit": [0, 1]}
    else:
        with pytest.raises(InvalidInput, match=rf"^'{path}'{sentence}$"):
            read_events(path)


@pytest.mark.parametrize("name", ["csv", "es"])
def test_a_file_of_more_events_than_may_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    FILES[name](tmp_path / "a")
    (path,) = tmp_path.iterdir()
    monkeypatch.setattr(files, "MAX_EVENTS", 3)
    assert len(read_events(path)["t"]) == 3
    monkeypatch.setattr(files, "MAX_EVENTS", 2)
    with pytest.raises(InvalidInput, match=rf"^'{path}': holds more than 2 events, expected at most as many$"):
        read_events(path)


def test_without_faery_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faery", None)  # which is how Python notes that there is no such module
    with pytest.raises(InvalidInput, match=r"^reader 'ES' needs the module faery, expected .* install .*\[events\]'$"):
        read_events(tmp_path / "a.es")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"#!AER-DAT4.0\r\nIOHE", "AEDAT"),
        (b"Event Stream\x02", "ES"),
        (b"% date 2020\r\n% format EVT3;height=720;width=1280\r\n\x00\x80", "EVT"),
        (b"% evt 2.0\n\x00", "EVT"),
        (b"% Data file containing CD events.\n% Version 2\n\x0c\x08", "DAT"),
        (b"time,x@10,y@12,on\r\n", "CSV"),
        (b'"t"\t"unit"\n1\t2\n', "CSV"),
        (b"5,1,2,1\n", "CSV"),
        (b"x,y\n1,2\n", None),  # of no times
        (b"t\n1\n", None),
        (b'{ "t" : [1]\n', None),  # JSON has blanks too
        (b'{"t,x": 1}\n', None),
        (b"1,2,3,4,5\n", None),
        (b"% \xff\n", None),
        (make_records([0x2025], [0], [0], [0]).tobytes(), None),  # '% ' and then zeros
        (b"", None),
    ],
)
def test_a_format_is_known_by_its_first_bytes(content: bytes, expected: str | None) -> None:
    assert file_format(content) == expected
