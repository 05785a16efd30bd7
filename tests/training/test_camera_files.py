"""Files of event cameras in a folder of recordings: the same events from every format, and a sentence for the rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.training.data import camera_files
from spikeserve.training.data.recordings import read_recording
from spikeserve.training.errors import InvalidData

faery = pytest.importorskip("faery", reason="faery is not installed here: it is of the extra 'events'")

EVENTS = [(5_000, 3, 0, True), (15_000, 0, 2, False), (30_000, 1, 1, True)]
PLACES = [[1, 0, 3], [0, 2, 0], [1, 1, 1]]  # of each, its polarity, row and column


def written(path: Path, events: list[tuple[int, int, int, bool]] = EVENTS, **how: Any) -> Path:
    array = np.array(events, faery.EVENTS_DTYPE)
    faery.events_stream_from_array(array, dimensions=(10, 12)).to_file(path, **how)
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.aedat4", {}),
        ("zstd.aedat4", {"compression": ("zstd", 3)}),
        ("evt2.raw", {"version": "evt2"}),
        ("evt3.RAW", {"version": "evt3", "file_type": "evt"}),
        ("dat1.dat", {"version": "dat1"}),
        ("dat2.dat", {"version": "dat2"}),
        ("a.es", {}),
        ("faery.csv", {}),  # whose names are t,x@10,y@12,on
    ],
)
def test_every_format_gives_the_same_recording_from_time_0(name: str, how: dict[str, Any], tmp_path: Path) -> None:
    recording = read_recording(written(tmp_path / name, **how))
    assert recording.t.tolist() == [0, 10_000, 25_000]
    assert recording.places.tolist() == PLACES


@pytest.mark.parametrize("suffix", [".aedat4", ".raw", ".es"])
def test_a_file_without_events_is_silence(suffix: str, tmp_path: Path) -> None:
    recording = read_recording(written(tmp_path / f"a{suffix}", []))
    assert (len(recording.t), recording.places.shape) == (0, (0, 3))


@pytest.mark.parametrize("suffix", [".aedat4", ".dat", ".es"])
def test_a_file_that_is_damaged_or_none_gets_one_sentence(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"a{suffix}")
    for content in (path.read_bytes()[:12], b"junk" * 20):  # the first ends within the header
        path.write_bytes(content)
        with pytest.raises(InvalidData, match=rf"^'{path}': cannot be read as events: [^\n]+$"):
            read_recording(path)


def test_a_file_of_more_events_than_may_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_files, "MAX_EVENTS", 3)
    assert len(read_recording(written(tmp_path / "three.es")).t) == 3
    path = written(tmp_path / "four.es", [*EVENTS, (40_000, 0, 0, False)])
    with pytest.raises(InvalidData, match=rf"^'{path}': holds more than 3 events, expected at most as many$"):
        read_recording(path)


def test_without_faery_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.es")
    for name in ("faery", "faery.file_decoder"):
        monkeypatch.setitem(sys.modules, name, None)  # which is how Python notes that there is no such module
    with pytest.raises(InvalidData, match=r"is read by the package faery, which is not installed: pip install 'spikes"):
        read_recording(path)
