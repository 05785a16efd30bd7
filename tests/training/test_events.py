"""Events: folders of files in any of the usual formats, and N-MNIST, DVS-Gesture, SHD and SSC as they are had."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding.records import binner, make_records, times_of
from spikeserve.models.spec import Coding, EventBinning, Origin
from spikeserve.training.config import DataConfig
from spikeserve.training.data.binning import read_recording
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.data.neuromorphic import microseconds, read_heidelberg, read_nmnist
from spikeserve.training.errors import InvalidData
from tests.contracts.datasets import CAMERA, KINDS, nmnist_event, write_heidelberg
from tests.training.command_line import ROOT, training_here

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
    folder = folder_of(tmp_path / "moves", events[[3, 1, 0, 2]])  # out of order
    for config, shape, places in (
        ({"max_steps": 3}, (3, 2, 2, 3), [(0, 0, 1, 2), (1, 1, 0, 0)]),  # the event of step 3 is dropped
        ({"sensor": (2, 4, 4), "downsample": 2, "max_steps": 1}, (1, 2, 2, 2), [(0, 0, 0, 1)]),  # one of 2×2 pixels
        # Each setting changed alone: none of them is read from the copy that another one left.
        ({"sensor": (2, 4, 4), "max_steps": 1}, (1, 2, 4, 4), [(0, 0, 1, 2)]),
        ({"sensor": (2, 4, 4)}, (4, 2, 4, 4), [(0, 0, 1, 2), (1, 1, 0, 0), (3, 1, 1, 1)]),
        ({"sensor": (2, 4, 4), "window": 20_000}, (2, 2, 4, 4), [(0, 0, 1, 2), (0, 1, 0, 0), (1, 1, 1, 1)]),
        ({}, (4, 2, 2, 3), [(0, 0, 1, 2), (1, 1, 0, 0), (3, 1, 1, 1)]),
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


def test_an_empty_recording_is_silence(tmp_path: Path) -> None:
    np.save(folder_of(tmp_path / "moves") / "class0" / "00.npy", EVENTS[:0])
    data = read(tmp_path / "moves")
    splits = data.training, data.validation, data.test
    assert sum(not sample.any() for split in splits for sample in split.samples) == 1


def test_a_folder_that_is_laid_out_otherwise_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "moves")
    (folder / "class0" / "notes.log").write_text("hello")
    with pytest.raises(
        InvalidData, match=r"folder: '.*notes.log' is not a file of events, expected .npy, .npz, [^;]*, .raw, [^;]*;"
    ):
        read(folder)
    with pytest.raises(InvalidData, match=rf"^'{tmp_path}/b.csv' cannot be read as events: No such file"):
        read_recording(tmp_path / "b.csv")
    with pytest.raises(InvalidData, match="has a folder for train alone"):
        read(folder_of(tmp_path / "half", split="train").parent / "half")
    with pytest.raises(InvalidData, match="holds 1 class with files, expected at least 2"):
        read(folder_of(tmp_path / "one", classes=1))
    (folder_of(tmp_path / "timeless") / "class0" / "a.csv").write_text("x,unit\n1,2\n")
    with pytest.raises(InvalidData, match=r"^'.*a\.csv' has no field 't'"):
        read(tmp_path / "timeless")
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


def test_an_event_of_nmnist_is_read_from_five_bytes(tmp_path: Path) -> None:
    path = tmp_path / "00001.bin"
    # A row of 240 is no pixel: the clock has gone round, and 2**13 = 8,192 µs are added from there on.
    path.write_bytes(nmnist_event(3, 5, 1, 70_000) + nmnist_event(0, 240, 0, 0) + nmnist_event(33, 0, 0, 100))
    recording = read_nmnist(path)
    assert recording.t.tolist() == [70_000, 8_292]
    assert recording.records.tobytes() == make_records([70_000, 8_292], [3, 33], [5, 0], [1, 0]).tobytes()
    tonic = pytest.importorskip("tonic.io")
    theirs = tonic.read_mnist_file(str(path), np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))
    assert theirs["t"].tolist() == recording.t.tolist()
    assert make_records(*(theirs[name] for name in "txyp")).tobytes() == recording.records.tobytes()


def test_nmnist_keeps_its_test_split_in_steps_of_10_ms(tmp_path: Path) -> None:
    KINDS["nmnist"].write(tmp_path)
    data = read(tmp_path, dataset="nmnist")
    assert data.test.labels.tolist() == [0] * 10 + [7] * 10
    assert data.class_names == tuple("0123456789")
    # Files are in the order of their names, of which 12 is the third: an event at once and one at 121 ms.
    assert np.argwhere(data.test.samples[12]).tolist() == [[0, 0, 0, 7], [12, 1, 1, 7]]
    assert read(tmp_path, dataset="nmnist", window=5000, downsample=2).test.samples.shape == (20, 60, 2, 17, 17)
    # Its recordings begin at time 0 and not at their first event, and so does the bundle's input.
    events = data.declared.events
    assert events == EventBinning(step_us=10_000, sensor=(34, 34), origin=Origin.ZERO)
    records = make_records([25_000], [7], [1], [1])
    assert binner(events).recording(records, times_of(records), 30).t.tolist() == [2]


def test_a_gesture_is_read_in_milliseconds_from_its_start(tmp_path: Path) -> None:
    KINDS["gestures"].write(tmp_path)
    data = read(tmp_path, dataset="dvs-gesture", downsample=4)
    # Gesture 7 of user 11, of events (70, 20, 1) at 3 ms and (70, 0, 0) at 279 ms: windows of 25 ms of the first 1.5 s.
    assert np.argwhere(data.test.samples[3]).tolist() == [[0, 1, 5, 17], [11, 0, 0, 17]]
    assert data.declared.events == EventBinning(step_us=25_000, sensor=(128, 128), bin=4)
    # The same gesture as records of any clock: units are (1 * 32 + 5) * 32 + 17 and 17.
    records = make_records([10**6, 10**6 + 276_000], [70, 70], [20, 0], [1, 0])
    found = binner(data.declared.events).recording(records, times_of(records), 60)
    assert (found.t.tolist(), found.unit.tolist()) == ([0, 11], [1201, 17])
    assert data.class_names[:2] == ("hand clapping", "right hand wave")
    folder = tmp_path / "DVSGesture/ibmGestureTrain/user0_led"
    for name, array, sentence in (
        ("0", np.zeros((3, 3)), r"has shape \(3, 3\), expected \(events, 4\)"),
        ("11", np.zeros((1, 4), np.int64), "is of class 11, expected 0 to 10"),
    ):
        np.save(folder / f"{name}.npy", array)
        with pytest.raises(InvalidData, match=sentence):
            read(tmp_path, dataset="dvs-gesture")


def test_float16_seconds_become_microseconds_that_float16_could_not_hold() -> None:
    # 0.5 s are 500,000 µs, and float16 ends at 65,504: tonic 1.6 makes infinity of it with NumPy 2.
    seconds = np.array([0.0, 0.0625, 0.5, 1.25], np.float16)
    assert microseconds(seconds, "here").tolist() == [0, 62_500, 500_000, 1_250_000]
    with pytest.raises(InvalidData, match="here: a time is inf s, expected at least 0"):
        microseconds(np.array([np.inf], np.float16), "here")
    with pytest.raises(InvalidData, match=r"here: a time is -1\.0 s, expected at least 0"):
        microseconds(np.array([-1], np.float16), "here")


def test_shd_is_read_with_its_classes_and_all_of_its_time(tmp_path: Path) -> None:
    names = [b"null", b"eins", b"zwei"]
    speakers = [speaker for speaker in range(10) for _ in range(3)]
    write_heidelberg(tmp_path / "SHD" / "shd_train.h5", [0, 1, 2] * 10, names, speakers=speakers)
    spikes = write_heidelberg(tmp_path / "SHD" / "shd_test.h5", [2, 0], names)
    data = read(tmp_path, dataset="shd")
    assert (len(data.training), len(data.validation), len(data.test)) == (27, 3, 2)
    assert data.class_names == ("null", "eins", "zwei")
    assert data.test.labels.tolist() == [2, 0]
    assert data.test.samples.shape == (2, 100, 700)
    seconds, units = spikes[0]
    expected = {(int(second / 0.014), int(unit)) for second, unit in zip(seconds.astype(float), units, strict=True)}
    found = {(int(step), int(unit)) for step, unit in np.argwhere(data.test.samples[0])}
    assert found == expected
    # Records of the file's own times become the same, although its first event is later than time 0.
    assert data.declared.events is not None
    t = microseconds(seconds, "")
    binned = binner(data.declared.events).recording(make_records(t, units), t, 100)
    assert set(zip(binned.t.tolist(), binned.unit.tolist(), strict=True)) == expected
    assert max(step for step, _ in found) > 65_504 / 14_000  # later than the last time that float16 would hold


def test_validation_of_shd_is_of_speakers_that_training_does_not_hear(tmp_path: Path) -> None:
    # Ten speakers who say both digits; the unit of a recording's only event says who speaks.
    speakers = [speaker for speaker in range(10) for _ in range(2)]
    spikes = [(np.zeros(1, np.float16), np.array([speaker], np.uint16)) for speaker in speakers]
    path = tmp_path / "SHD" / "shd_train.h5"
    write_heidelberg(path, [0, 1] * 10, [b"a", b"b"], speakers, spikes)
    write_heidelberg(tmp_path / "SHD" / "shd_test.h5", [1, 0], [b"a", b"b"])
    for seed in range(2):
        data = read(tmp_path, dataset="shd", split_seed=seed)
        trained, validated = ({*split.samples.nonzero()[2].tolist()} for split in (data.training, data.validation))
        assert (trained | validated, trained & validated) == ({*range(10)}, set())
    write_heidelberg(path, [0, 1] * 10, [b"a", b"b"], [0, 0, 0])
    with pytest.raises(InvalidData, match="has 20 recordings, 20 labels and the speakers of 3, expected as many of"):
        read(tmp_path, dataset="shd")


@pytest.mark.parametrize("name", ["shd", "ssc"])
def test_the_pages_command_trains_on_files_as_they_are_downloaded(name: str, tmp_path: Path) -> None:
    (line,) = re.findall(r"^spikeserve (fit --dataset shd .*)$", (ROOT / "docs/data.md").read_text(), re.M)
    for part in ("train", "valid", "test") if name == "ssc" else ("train", "test"):
        path = tmp_path / "data" / name.upper() / f"{name}_{part}.h5"
        write_heidelberg(path, [0, 1] * 6, [b"a", b"b"], speakers=[speaker for speaker in range(6) for _ in range(2)])
    # The last of two flags counts: a layer of 4 for one epoch does here.
    done = training_here(
        *line.replace("shd", name).split(), "--architecture", "4R:adlif", "--epochs", "1", cwd=tmp_path, plots=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"Test accuracy .* \(\d+ of 12\)", done.stdout)


def test_what_is_read_here_is_what_tonic_reads(tmp_path: Path) -> None:
    datasets = pytest.importorskip("tonic.datasets")
    write_heidelberg(tmp_path / "SHD" / "shd_train.h5", [0, 1] * 6, [b"a", b"b"])
    (tmp_path / "SHD" / "shd_train.h5.zip").touch()  # tonic looks for the archive, too, and downloads nothing then
    theirs = datasets.SHD(str(tmp_path), train=True)
    ours, names, _ = read_heidelberg(tmp_path / "SHD" / "shd_train.h5")
    assert [name.decode() for name in theirs.classes] == list(names)
    for index in range(len(ours)):
        events, label = theirs[index]
        recording = ours.read(index)
        assert label == ours.labels[index]
        assert np.abs(events["t"] - recording.t).max() <= 1  # which tonic cuts off instead of rounding
        assert events["x"].tolist() == recording.records["x"].tolist()
