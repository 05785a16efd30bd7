"""N-MNIST, DVS-Gesture, SHD and SSC, read from small files in their real formats, as tonic reads them or better."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding.records import binner, make_records, times_of
from spikeserve.models.spec import Coding, EventBinning, Origin
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.data.neuromorphic import microseconds, read_heidelberg, read_nmnist
from spikeserve.training.errors import InvalidData
from tests.contracts.datasets import KINDS, nmnist_event, write_heidelberg
from tests.training.command_line import ROOT, training_here

FLOAT16_MAX = 65_504


def read(folder: Path, dataset: str, **config: Any) -> Dataset:
    return load(DataConfig(dataset=dataset, folder=folder, **config), Coding.SPIKES)


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
    path.write_bytes(b"1234567")
    with pytest.raises(InvalidData, match="has 7 bytes, expected 5 for each event"):
        read_nmnist(path)


def test_nmnist_keeps_its_test_split_in_steps_of_10_ms(tmp_path: Path) -> None:
    KINDS["nmnist"].write(tmp_path)
    data = read(tmp_path, "nmnist")
    assert data.test.labels.tolist() == [0] * 10 + [7] * 10
    assert data.class_names == tuple("0123456789")
    # Files are in the order of their names, of which 12 is the third: an event at once and one at 121 ms.
    assert np.argwhere(data.test.samples[12]).tolist() == [[0, 0, 0, 7], [12, 1, 1, 7]]
    assert read(tmp_path, "nmnist", window=5000, downsample=2).test.samples.shape == (20, 60, 2, 17, 17)
    # Its recordings begin at time 0 and not at their first event, and so does the bundle's input.
    events = data.declared.events
    assert events == EventBinning(step_us=10_000, sensor=(34, 34), origin=Origin.ZERO)
    records = make_records([25_000], [7], [1], [1])
    assert binner(events).recording(records, times_of(records), 30).t.tolist() == [2]


def test_a_gesture_is_read_in_milliseconds_from_its_start(tmp_path: Path) -> None:
    KINDS["gestures"].write(tmp_path)
    data = read(tmp_path, "dvs-gesture", downsample=4)
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
            read(tmp_path, "dvs-gesture")


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
    data = read(tmp_path, "shd")
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
    assert max(step for step, _ in found) > FLOAT16_MAX / 14_000  # later than the last time that float16 would hold


def test_validation_of_shd_is_of_speakers_that_training_does_not_hear(tmp_path: Path) -> None:
    # Ten speakers who say both digits; the unit of a recording's only event says who speaks.
    speakers = [speaker for speaker in range(10) for _ in range(2)]
    spikes = [(np.zeros(1, np.float16), np.array([speaker], np.uint16)) for speaker in speakers]
    path = tmp_path / "SHD" / "shd_train.h5"
    write_heidelberg(path, [0, 1] * 10, [b"a", b"b"], speakers, spikes)
    write_heidelberg(tmp_path / "SHD" / "shd_test.h5", [1, 0], [b"a", b"b"])
    for seed in range(2):
        data = read(tmp_path, "shd", split_seed=seed)
        trained, validated = ({*split.samples.nonzero()[2].tolist()} for split in (data.training, data.validation))
        assert (trained | validated, trained & validated) == ({*range(10)}, set())
    write_heidelberg(path, [0, 1] * 10, [b"a", b"b"], [0, 0, 0])
    with pytest.raises(InvalidData, match="has 20 recordings, 20 labels and the speakers of 3, expected as many of"):
        read(tmp_path, "shd")


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
