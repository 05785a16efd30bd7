"""Folders of event files: any of the usual fields and formats, binned once, with a sentence for whatever is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding, EventBinning
from spikeserve.training.config import DataConfig
from spikeserve.training.data.binning import read_recording
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.errors import InvalidData
from tests.contracts.datasets import CAMERA

# Three events: at once, 10 ms and 25 ms later; the places are (p, y, x).
EVENTS = np.array([(5_000, 3, 0, 1), (15_000, 0, 2, 0), (30_000, 1, 1, 1)], CAMERA)


def folder_of(path: Path, events: Any = EVENTS, classes: int = 2, each: int = 10, split: str = "") -> Path:
    """Write a folder of classes with `each` files of the same events."""
    for label in range(classes):
        (path / split / f"class{label}").mkdir(parents=True)
        for index in range(each):
            np.save(path / split / f"class{label}" / f"{index:02}.npy", events)
    return path


def read(folder: Path, **config: Any) -> Dataset:
    return load(DataConfig(**{"dataset": "events", "folder": folder} | config), Coding.SPIKES)


def test_a_raster_has_a_one_for_each_window_with_an_event(tmp_path: Path) -> None:
    # Windows of 10 ms: 0 and 9,999 µs are step 0, 10,000 is step 1; two events of a place in one window are one spike.
    events = np.array([(0, 2, 1, 0), (9_999, 2, 1, 0), (10_000, 0, 0, 1), (35_000, 1, 1, 1)], CAMERA)
    folder = folder_of(tmp_path / "moves", events)
    for config, shape, places in (
        ({"max_steps": 3}, (3, 2, 2, 3), [(0, 0, 1, 2), (1, 1, 0, 0)]),  # the event of step 3 is dropped
        ({"sensor": (2, 4, 4), "downsample": 2, "max_steps": 1}, (1, 2, 2, 2), [(0, 0, 0, 1)]),  # one of 2×2 pixels
    ):
        raster = read(folder, **config).test.samples[0]
        assert raster.shape == shape
        assert list(zip(*map(np.ndarray.tolist, raster.nonzero()), strict=True)) == places
    for path in folder.glob("*/*.npy"):
        path.with_suffix(".csv").write_text("t,unit\n3,5\n3,0\n")
        path.unlink()
    units = read(folder, downsample=2)  # of two units one
    assert (units.test.samples[0].tolist(), units.declared.shape) == ([[1, 0, 1]], (3,))


@pytest.mark.parametrize(
    ("config", "shape", "binning"),
    [
        # The last event is 25 ms after the first: 3 steps of 10 ms. Places reach (1, 2, 3): 2 × 3 × 4.
        ({}, (3, 2, 3, 4), {"step_us": 10_000, "sensor": (4, 3), "polarity": "channels"}),
        ({"window": 1000}, (26, 2, 3, 4), {"step_us": 1000, "sensor": (4, 3), "polarity": "channels"}),
        ({"window": 1000, "max_steps": 20}, (20, 2, 3, 4), {"step_us": 1000, "sensor": (4, 3), "polarity": "channels"}),
        ({"sensor": (2, 8, 9)}, (3, 2, 8, 9), {"step_us": 10_000, "sensor": (9, 8), "polarity": "channels"}),
        (
            {"sensor": (2, 8, 9), "downsample": 2},
            (3, 2, 4, 5),
            {"step_us": 10_000, "sensor": (9, 8), "bin": 2, "polarity": "channels"},
        ),
    ],
)
def test_the_windows_steps_sensor_and_downsampling_are_the_users(
    tmp_path: Path, config: dict[str, Any], shape: tuple[int, ...], binning: dict[str, Any]
) -> None:
    data = read(folder_of(tmp_path / "moves"), **config)
    assert (data.name, data.class_names, data.declared.high) == ("moves", ("class0", "class1"), 1)
    assert (data.training.samples.shape, str(data.training.samples.dtype)) == ((14, *shape), "uint8")
    assert (data.declared.events, data.dt) == (EventBinning(**binning), binning["step_us"] * 1e-6)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"sensor": (2, 3)}, "sensor: is 2×3, but events reach as far as 2×3×4"),
        ({"sensor": (2, 2, 2)}, "sensor: is 2×2×2, but events reach as far as 2×3×4"),
        ({"sensor": (3, 30, 34)}, "sensor: is 3×30×34, expected 1 or 2 polarities, height and width, or units"),
        (
            {"sensor": (2, 2**15 + 1, 34)},
            "events: sensor is 34×32769, expected at most 65536×32768, as a record has no",
        ),
        ({"window": 1}, "window: 1 microseconds make 2500001 time steps of a recording, expected at mo"),
        ({"normalise": "standard"}, "normalise: is 'standard', but coding 'spikes' takes values as they are"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, config: dict[str, Any], sentence: str) -> None:
    long = EVENTS.copy()
    long["t"] *= 100
    folder = folder_of(tmp_path / "moves", long)
    with pytest.raises(InvalidData, match=f"^{sentence}"):
        read(folder, **config)
    assert not (folder / ".cache").exists()


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


def test_a_recording_that_is_no_file_gets_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=rf"^'{tmp_path}/b.csv' cannot be read as events: No such file"):
        read_recording(tmp_path / "b.csv")
    (folder_of(tmp_path) / "class0" / "a.csv").write_text("x,unit\n1,2\n")
    with pytest.raises(InvalidData, match=r"^'.*a\.csv' has no field 't'"):
        read(tmp_path)


def test_an_empty_recording_is_silence(tmp_path: Path) -> None:
    np.save(folder_of(tmp_path / "moves") / "class0" / "00.npy", EVENTS[:0])
    data = read(tmp_path / "moves")
    splits = data.training, data.validation, data.test
    assert sum(not sample.any() for split in splits for sample in split.samples) == 1


def test_a_folder_that_is_laid_out_otherwise_is_refused(tmp_path: Path) -> None:
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
    mixed = folder_of(tmp_path / "mixed")
    (mixed / "class0" / "00.npy").unlink()
    (mixed / "class0" / "00.csv").write_text("t,unit\n1,2\n")
    with pytest.raises(InvalidData, match="some recordings have x, y and p, and others have unit"):
        read(mixed)
    other = folder_of(tmp_path / "other", split="train")
    folder_of(other, classes=3, split="test")
    with pytest.raises(InvalidData, match="folder: training has no class 'class2', expected one of class0, class1"):
        read(other)


def test_a_damaged_cache_says_what_to_do(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "moves")
    read(folder)
    (kept,) = (folder / ".cache").iterdir()
    (kept / "test.npy").write_bytes(b"short")
    with pytest.raises(InvalidData, match=r"cache: '.*moves-[0-9a-f]{16}' cannot be read, delete it"):
        read(folder)
