"""Folders of event files: any of the usual fields and formats, binned once, with a sentence for whatever is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding.records import make_records
from spikeserve.models.spec import Coding, EventBinning, Origin
from spikeserve.training.config import DataConfig
from spikeserve.training.data import binning
from spikeserve.training.data.binning import Grid, Known, Recording, read_recording
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.errors import InvalidData

CAMERA = [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "?")]
# Three events: at once, 10 ms and 25 ms later; the places are (p, y, x).
EVENTS = np.array([(5_000, 3, 0, 1), (15_000, 0, 2, 0), (30_000, 1, 1, 1)], CAMERA)


def folder_of(path: Path, classes: int = 2, each: int = 10, split: str = "") -> Path:
    """Write a folder of classes with `each` files that differ in when their second event is."""
    for label in range(classes):
        (path / split / f"class{label}").mkdir(parents=True)
        for index in range(each):
            events = EVENTS.copy()
            events["t"][1:] += 1000 * index
            events["x"][0] = label
            np.save(path / split / f"class{label}" / f"{index:02}.npy", events)
    return path


def read(folder: Path, coding: Coding = Coding.SPIKES, **config: Any) -> Dataset:
    return load(DataConfig(**{"dataset": "events", "folder": folder} | config), coding)


def test_a_raster_has_a_one_for_each_window_with_an_event() -> None:
    # Windows of 10 ms: 0 and 9,999 µs are step 0, 10,000 is step 1; two events of a place in one window are one spike.
    t = np.array([0, 9_999, 10_000, 35_000])
    recording = Recording(t, make_records(t, [2, 2, 0, 1], [1, 1, 0, 1], [0, 0, 1, 1]))
    grid = Grid(
        binning.event_binning((2, 2, 3), 10_000, 1), 3, (2, 2, 3)
    )  # of three steps: the event of step 3 is dropped
    assert [tuple(map(int, place)) for place in np.argwhere(grid.raster(recording))] == [(0, 0, 1, 2), (1, 1, 0, 0)]
    # Of 2×2 pixels one is left, but of both polarities; and of two units one.
    joined = Grid(binning.event_binning((2, 4, 4), 10_000, 2), 1, (2, 4, 4)).raster(recording)
    assert [tuple(map(int, place)) for place in np.argwhere(joined)] == [(0, 0, 0, 1)]
    units = Grid(binning.event_binning((6,), 10_000, 2), 1, (6,))
    assert units.raster(Recording(t[:1], make_records([0], [5]), camera=False)).tolist() == [[0, 0, 1]]


def test_a_file_that_holds_no_events_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,unit\n1,2\n")
    for name, sentence in (("a.csv", " has no field 't'"), ("b.csv", " cannot be read as events: No such file")):
        with pytest.raises(InvalidData, match=rf"^'{tmp_path / name}'{sentence}[^\n]*$"):
            read_recording(tmp_path / name)


def test_a_folder_of_classes_is_split_and_binned(tmp_path: Path) -> None:
    data = read(folder_of(tmp_path / "moves"))
    assert (data.name, data.class_names) == ("moves", ("class0", "class1"))
    assert (len(data.training), len(data.validation), len(data.test)) == (14, 2, 4)
    # The last event is 25 + 9 ms after the first: 4 steps of 10 ms. Places reach (1, 2, 1): 2 × 3 × 2.
    assert data.training.samples.shape == (14, 4, 2, 3, 2)
    assert data.training.samples.dtype == np.uint8
    assert (data.declared.shape, data.declared.high, data.dt) == ((2, 3, 2), 1, 0.01)
    for split in (data.training, data.validation, data.test):
        for sample, label in zip(split.samples, split.labels, strict=True):
            assert sample[0, 1, 0].tolist() == [1 - label, label]  # x of the first event is the class


def test_the_windows_steps_sensor_and_downsampling_are_the_users(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "moves")
    assert read(folder, window=1000).training.samples.shape == (14, 35, 2, 3, 2)
    assert read(folder, window=1000, max_steps=20).training.samples.shape == (14, 20, 2, 3, 2)
    assert read(folder, sensor=(2, 8, 9)).declared.shape == (2, 8, 9)
    assert read(folder, sensor=(2, 8, 9), downsample=2).declared.shape == (2, 4, 5)


def test_folders_of_train_and_test_are_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "moves"
    folder_of(folder, split="Train")
    folder_of(folder, each=3, split="test")
    data = read(folder)
    assert (len(data.training), len(data.validation), len(data.test)) == (18, 2, 6)
    folder_of(folder, each=1, split="val")
    data = read(folder)
    assert (len(data.training), len(data.validation), len(data.test)) == (20, 2, 6)


def test_a_folder_is_binned_once_until_a_file_or_a_setting_changes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "moves")
    cache = folder / ".cache"
    first = np.array(read(folder).training.samples)
    (kept,) = cache.iterdir()
    written = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    np.testing.assert_array_equal(read(folder).training.samples, first)
    assert {path.name: path.stat().st_mtime_ns for path in kept.iterdir()} == written
    assert len(list(cache.iterdir())) == 1
    read(folder, split_seed=1)
    assert len(list(cache.iterdir())) == 2
    np.save(folder / "class0" / "new.npy", EVENTS)
    assert sum(map(len, (data := read(folder), data.training, data.validation, data.test)[1:])) == 21
    assert len(list(cache.iterdir())) == 3


def test_an_empty_recording_is_silence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "moves")
    np.save(folder / "class0" / "00.npy", EVENTS[:0])
    data = read(folder)
    silent = [
        sample for split in (data.training, data.validation, data.test) for sample in split.samples if not sample.any()
    ]
    assert len(silent) == 1


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"sensor": (2, 3)}, "sensor: is 2×3, but events reach as far as 2×3×2"),
        ({"sensor": (2, 2, 2)}, "sensor: is 2×2×2, but events reach as far as 2×3×2"),
        ({"normalise": "standard"}, "normalise: is 'standard', but coding 'spikes' takes values as they are"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, config: dict[str, Any], sentence: str) -> None:
    folder = folder_of(tmp_path / "moves")
    with pytest.raises(InvalidData, match=sentence):
        read(folder, **config)


def test_what_is_too_long_or_large_is_refused_unmade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "moves")
    long = EVENTS.copy()
    long["t"][2] = 2_000_000
    np.save(folder / "class0" / "00.npy", long)
    with pytest.raises(
        InvalidData, match="window: 1 microseconds make 1995001 time steps of a recording, expected at mo"
    ):
        read(folder, window=1)
    monkeypatch.setattr(binning, "MAX_BYTES", 1000)
    with pytest.raises(
        InvalidData, match=r"20 rasters of 200×2×3×4 are 96,000 bytes, expected at most 1,000; a longer"
    ):
        read(folder)
    assert not (folder / ".cache").exists()


def test_a_folder_that_is_laid_out_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"folder: '.*absent' is not a folder, expected folder/class/file"):
        read(tmp_path / "absent")
    folder = folder_of(tmp_path / "moves")
    (folder / "class0" / "notes.txt").write_text("hello")
    with pytest.raises(
        InvalidData, match=r"folder: '.*notes.txt' is not a file of events, expected .npy, .npz, [^;]*, .raw, [^;]*;"
    ):
        read(folder)
    with pytest.raises(InvalidData, match="has a folder for train alone"):
        read(folder_of(tmp_path / "half", split="train").parent / "half")
    with pytest.raises(InvalidData, match="holds 1 class with files, expected at least 2"):
        read(folder_of(tmp_path / "one", classes=1))
    with pytest.raises(InvalidData, match="coding: is 'direct', but dataset 'events' holds events, expected spikes"):
        read(folder_of(tmp_path / "fine"), Coding.DIRECT)
    mixed = folder_of(tmp_path / "mixed")
    (mixed / "class0" / "00.npy").unlink()
    (mixed / "class0" / "00.csv").write_text("t,unit\n1,2\n")
    with pytest.raises(InvalidData, match="some recordings have x, y and p, and others have unit"):
        read(mixed)
    other = folder_of(tmp_path / "other", split="train")
    folder_of(other, classes=3, split="test")
    with pytest.raises(InvalidData, match="folder: training has no class 'class2', expected one of class0, class1"):
        read(other)


def test_a_file_larger_than_any_real_one_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(2**28 + 1)  # sparse: it takes no disk
    with pytest.raises(InvalidData, match="it has 268,435,457 bytes, expected at most 268,435,456"):
        read_recording(tmp_path / "huge.csv")


def test_a_damaged_cache_says_what_to_do(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "moves")
    read(folder)
    (kept,) = (folder / ".cache").iterdir()
    (kept / "test.npy").write_bytes(b"short")
    with pytest.raises(InvalidData, match=r"cache: '.*moves-[0-9a-f]{16}' cannot be read, delete it"):
        read(folder)


@pytest.mark.parametrize(
    ("sensor", "expected"),
    [
        # A camera's shape is polarity, height and width; a sensor's size is width and height.
        ((2, 30, 34), {"sensor": (34, 30), "polarity": "channels"}),
        ((1, 30, 34), {"sensor": (34, 30), "polarity": "merged"}),
        ((700,), {"sensor": (700,), "polarity": "merged"}),
    ],
)
def test_what_is_known_of_a_sensor_is_said_as_records_are(sensor: tuple[int, ...], expected: dict[str, Any]) -> None:
    known = Known(sensor, 1000, 10, Origin.ZERO)
    found = binning.event_binning(sensor, 10, 3, known)
    assert found == EventBinning(step_us=10, bin=3, origin=Origin.ZERO, **expected)


@pytest.mark.parametrize(
    ("sensor", "window", "sentence"),
    [
        ((3, 30, 34), 10, "sensor: is 3×30×34, expected 1 or 2 polarities, height and width, or units"),
        ((30, 34), 10, "sensor: is 30×34, expected 1 or 2 polarities"),
        ((2, 2**15 + 1, 34), 10, "events: sensor is 34×32769, expected at most 65536×32768, as a record has no more"),
        ((700,), 2**31, "events: step_us: input should be less than or equal to 2147483647"),
    ],
)
def test_a_sensor_that_records_have_no_bits_for_is_refused(sensor: tuple[int, ...], window: int, sentence: str) -> None:
    with pytest.raises(InvalidData, match=f"^{sentence}"):
        binning.event_binning(sensor, window, 1)
