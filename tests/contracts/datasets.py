"""The kinds of data that training reads, each written as its files lie on a disk, of two classes.

The weight of a sample lies further along its last axis in the second class, and no two samples are the same.
"""

import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import Dataset, load


@dataclass(frozen=True)
class Kind:
    """One kind of data: `write` writes its files below a folder, and returns one of them."""

    write: Callable[[Path], Path]
    dataset: str
    coding: Coding
    shape: tuple[int, ...]
    steps: int | None  # of a sample; None where the coding has none
    absent: str  # the sentence where no file is there
    unread: str  # the sentence where a file is of another kind
    sizes: tuple[int, int, int] = (28, 4, 8)  # of the splits: a fifth is tested, a tenth of the others validates
    labels: tuple[int, int] = (0, 1)
    own_splits: int = 0  # how many of validation and test are the files' own, test first
    file: bool = False  # whether the configuration names the file, and not its folder
    still_whole: frozenset[str] = field(default_factory=frozenset)  # the kinds of damage that leave it a file
    limit: tuple[str, int, str] | None = None  # what bounds its memory, a low bound, and the sentence above it

    def load(self, folder: Path, coding: Coding | None = None, **config: Any) -> Dataset:
        """Load what was written below a folder."""
        place: dict[str, Any] = {"file": next(folder.glob("data.*"), folder / "data.npz")} if self.file else {}
        config = {"dataset": self.dataset, "folder": folder} | place | config
        return load(DataConfig(**config), coding or self.coding)


LABELS = np.arange(40) % 2
# (40, 6, 2): sample n of the class c has 1 + n in channel c.
SERIES = np.zeros((40, 6, 2), np.float32)
SERIES[np.arange(40), :, LABELS] = 1 + np.arange(40)[:, np.newaxis]
TABLE = pd.DataFrame({"left": SERIES[:, 0, 0], "right": SERIES[:, 0, 1], "class": LABELS})


def below(folder: Path, *parts: object) -> Path:
    """Return a path below a folder, whose own folder is made."""
    path = folder.joinpath(*map(str, parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def arrays(values: NDArray[Any], **others: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "data.npz", x=values, y=LABELS, **others)
        return folder / "data.npz"

    return write


def array_files(folder: Path) -> Path:
    for number, sample in enumerate(SERIES):
        np.save(below(folder, "ab"[LABELS[number]], f"{number}.npy"), sample)
    return folder / "a" / "0.npy"


def csv(folder: Path) -> Path:
    TABLE.to_csv(folder / "data.csv", index=False)
    return folder / "data.csv"


def parquet(folder: Path) -> Path:
    TABLE.to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def picture_files(folder: Path) -> Path:
    for number, sample in enumerate(SERIES):
        pixels = 5 * np.repeat(sample[:3], 2, axis=1).astype(np.uint8)
        Image.fromarray(pixels).save(below(folder, "ab"[LABELS[number]], f"{number}.png"))
    return folder / "a" / "0.png"


def mnist(folder: Path) -> Path:
    for part, numbers in (("train", range(20)), ("t10k", range(20, 40))):
        images = np.repeat(SERIES[numbers].repeat(14, axis=2)[:, :1], 28, axis=1).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", LABELS[numbers].astype(np.uint8))):
            content = pack(f">I{array.ndim}I", 0x800 | array.ndim, *array.shape) + array.tobytes()
            below(folder, "MNIST", "raw", f"{part}-{name}-ubyte").write_bytes(content)
    return folder / "MNIST" / "raw" / "train-images-idx3-ubyte"


CAMERA = [("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "?")]


def event_files(folder: Path) -> Path:
    for number, label in enumerate(LABELS):
        events = np.array([(5_000, label, 0, 1), (6_000 + 10_000 * number, label, 2, 0)], CAMERA)
        np.save(below(folder, "ab"[label], f"{number}.npy"), events)
    return folder / "a" / "0.npy"


RATE = 8000


def tone(hertz: float, seconds: float, rate: int = RATE) -> Any:
    """Return a signal of one frequency, half as loud as can be."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_wav(path: Path, signal: Any, rate: int = RATE, width: int = 2, channels: int = 1) -> None:
    """Write a signal from -1 to 1 as a wav file of `width` bytes a sample, the same in each channel."""
    largest = 2 ** (8 * width - 1)
    values = np.round(np.clip(signal, -1, 1) * (largest - 1)) + (128 if width == 1 else 0)
    with wave.open(str(below(path)), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.repeat(values, channels).astype(f"<{'u' if width == 1 else 'i'}{width}").tobytes())


def spoken_digits(folder: Path) -> Path:
    for label, hertz in ((0, 200), (7, 2500)):
        for number in range(20):  # which begin later and later
            signal = np.concatenate([np.zeros(80 * number), tone(hertz, 0.1), np.zeros(2000)])[:2400]
            write_wav(folder / f"{label}_jackson_{number}.wav", signal)
    return folder / "0_jackson_9.wav"


def nmnist_event(x: int, y: int, p: int, t: int) -> bytes:
    """An event in five bytes: x, y, then the polarity as the top bit of 24, whose others are the time."""
    return bytes([x, y]) + (p << 23 | t).to_bytes(3, "big")


def nmnist(folder: Path) -> Path:
    for number in range(20):
        for digit in (0, 7):
            content = nmnist_event(digit, 1, 1, 1_000 + 10_000 * number) + nmnist_event(digit, 0, 0, 0)
            below(folder, "NMNIST", ("Train", "Test")[number > 9], digit, f"{number}.bin").write_bytes(content)
    return folder / "NMNIST" / "Train" / "0" / "0.bin"


def gestures(folder: Path) -> Path:
    for number in range(20):
        for gesture in (0, 7):
            events = [[10 * gesture, 20, 1, 3], [10 * gesture, 0, 0, 4 + 25 * number]]  # x, y, p, ms
            user = below(folder, "DVSGesture", f"ibmGesture{('Train', 'Test')[number > 9]}", f"user{number}_led", "x")
            np.save(below(user.parent, f"{gesture}.npy"), np.array(events, np.int64))
    return folder / "DVSGesture" / "ibmGestureTrain" / "user0_led" / "0.npy"


def write_heidelberg(
    path: Path,
    labels: Sequence[int],
    names: Sequence[bytes],
    speakers: Sequence[int] | None = None,
    spikes: Sequence[tuple[NDArray[np.float16], NDArray[np.uint16]]] | None = None,
) -> list[tuple[NDArray[np.float16], NDArray[np.uint16]]]:
    """Write an h5 file as Heidelberg's: float16 seconds, 16-bit units, labels, speakers, and the classes' names."""
    rng = np.random.default_rng(len(labels))
    drawn = [(np.sort(rng.random(30)).astype(np.float16), rng.integers(0, 700, 30, np.uint16)) for _ in labels]
    spikes = drawn if spikes is None else spikes
    with h5py.File(below(path), "w") as file:
        for name, dtype, at in (("times", np.float16, 0), ("units", np.uint16, 1)):
            rows = file.create_dataset(f"spikes/{name}", (len(labels),), h5py.vlen_dtype(dtype))
            for index, each in enumerate(spikes):
                rows[index] = each[at]
        file["labels"] = np.array(labels, np.uint16)
        file["extra/keys"] = np.array(names)
        file["extra/speaker"] = np.array(labels if speakers is None else speakers, np.uint16)
        file["extra/meta_info/age"] = np.zeros(12, np.uint16)
    return list(spikes)


def heidelberg(name: str, *parts: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for part, numbers in zip(parts, np.split(np.arange(40), [20, 30][: len(parts) - 1]), strict=True):
            spikes = [(np.array([0.02 * n], np.float16), np.array([600 * LABELS[n]], np.uint16)) for n in numbers]
            path = folder / name.upper() / f"{name}_{part}.h5"
            write_heidelberg(path, LABELS[numbers].tolist(), [b"a", b"b"], (numbers // 2).tolist(), spikes)
        return folder / name.upper() / f"{name}_train.h5"

    return write


MEMORY, RASTERS = "spikeserve.training.data.{}.memory", "spikeserve.training.data.binning.MAX_BYTES"
GET = "the train part of {0} is not in '.*{0}'; pass --download, or put the files there as the package tonic lays them"
CUT, EMPTY = frozenset({"cut short"}), frozenset({"emptied"})
OWN: dict[str, Any] = {"own_splits": 1, "sizes": (18, 2, 20), "labels": (0, 7)}
NO_NPZ = r"is no \.npz, .* read it in Python, and write its arrays by np\.savez\('data', x=x, y=y\)"
H5 = "cannot be read as SHD or SSC"
NPZ = "data.npz': cannot be read as an .npz of numbers: No such file"
OF_ARRAYS = "file: not given, and folder '.*' is not one; dataset 'arrays' needs"
KINDS: Mapping[str, Kind] = {
    "values": Kind(
        arrays(SERIES[:, 0]), "arrays", Coding.DIRECT, (2,), None, NPZ, NO_NPZ, file=True,
        limit=(MEMORY.format("numpy_files"), 500, r"it has [\d,]+ bytes, expected at most 500"),
    ),
    "series": Kind(arrays(SERIES), "arrays", Coding.CURRENT, (2,), 6, NPZ, NO_NPZ, file=True),
    "sequences": Kind(
        arrays(SERIES, lengths=3 + np.arange(40) % 4), "arrays", Coding.CURRENT, (2,), 6, NPZ, NO_NPZ, file=True,
    ),
    "array files": Kind(
        array_files, "arrays", Coding.CURRENT, (2,), 6, OF_ARRAYS, "cannot be read as an array",
        limit=(MEMORY.format("arrays"), 1000, "folder: the files of '.*' do not fit the memory"),
    ),
    "csv": Kind(
        csv, "arrays", Coding.DIRECT, (2,), None, NPZ, "8 rows of 1 columns, expected", file=True,
        limit=(MEMORY.format("tables"), 100, r"it has \d+ bytes, expected at most 100"),
    ),
    "parquet": Kind(
        parquet, "arrays", Coding.DIRECT, (2,), None, NPZ, "cannot be read as a table", file=True,
        limit=(MEMORY.format("tables"), 100, r"it has [\d,]+ bytes, expected at most 100"),
    ),
    "pictures": Kind(
        picture_files, "arrays", Coding.DIRECT, (1, 3, 4), None, OF_ARRAYS, "cannot be read as a picture",
        still_whole=CUT, limit=(MEMORY.format("pictures"), 1000, "with those before it takes 1,008 bytes, more than"),
    ),
    "mnist": Kind(
        mnist, "mnist", Coding.DIRECT, (1, 28, 28), None, "MNIST is not in .*raw.* put its four idx files there or",
        "MNIST is not in .*raw", **OWN | {"labels": (0, 1)},
    ),
    "events": Kind(
        event_files, "events", Coding.SPIKES, (2, 3, 2), 40, "folder: '.*absent' is not a folder, expected folder/",
        "cannot be read", limit=(RASTERS, 1000, r"40 rasters of 40×2×3×2 are 19,200 bytes, ex"),
    ),
    "spoken digits": Kind(
        spoken_digits, "spoken-digits", Coding.SPIKES, (80,), 28, "holds no recordings of the Free Spoken Digit Data",
        "cannot be read as a wav file", (27, 3, 10), (0, 7), 1, still_whole=CUT,
    ),
    "nmnist": Kind(
        nmnist, "nmnist", Coding.SPIKES, (2, 34, 34), 30, GET.format("NMNIST"), "expected 5 for each event",
        still_whole=EMPTY, **OWN,
    ),
    "gestures": Kind(
        gestures, "dvs-gesture", Coding.SPIKES, (2, 128, 128), 60, GET.format("DVSGesture"), "cannot be read as an arr",
        **OWN, limit=(RASTERS, 1000, r"40 rasters of 60×2×128×128 are"),
    ),
    "shd": Kind(
        heidelberg("shd", "train", "test"), "shd", Coding.SPIKES, (700,), 100, GET.format("SHD"), H5,
        **OWN | {"labels": (0, 1)},
    ),
    "ssc": Kind(
        heidelberg("ssc", "train", "valid", "test"), "ssc", Coding.SPIKES, (700,), 100, GET.format("SSC"), H5,
        (20, 10, 10), own_splits=2,
    ),
}  # fmt: skip
