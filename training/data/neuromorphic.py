"""The event data sets of research: N-MNIST, DVS-Gesture, and the spoken digits and commands of Heidelberg.

    nmnist        28×28 digits before a moving event camera: 2×34×34, 10 classes; three saccades of 100 ms, 30 steps
    dvs-gesture   11 gestures before an event camera: 2×128×128; the first 1.5 s in 60 steps
    shd           20 spoken digits in German and English as spikes of 700 channels; 1.4 s in 100 steps
    ssc           35 spoken commands, likewise; 1 s in 100 steps

The package tonic (extra `datasets`) downloads them, and is needed for nothing else: the files are read here, where
tonic leaves them below the folder. Their own test split is kept. SSC has its own validation split too; of SHD the
recordings of whole speakers are held out from training for it.

SHD and SSC hold times as float16 seconds. tonic before 1.7 multiplies them by 1e6 in float16, whose largest number is
65,504: with NumPy 2 every event after 0.07 s is then at infinity. Here they become float64 first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.records import make_records
from spikeserve.models.spec import Coding, Origin
from spikeserve.training.config import DataConfig
from spikeserve.training.data.binning import MAX_FILE_BYTES, DatasetFacts, Recording, Recordings, binned
from spikeserve.training.data.dataset import DIGITS, Dataset
from spikeserve.training.data.numpy_files import explained, read_npy
from spikeserve.training.data.splits import Groups, hold_out
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import read_bytes

GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise",
    "left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip

# N-MNIST: five bytes per event, and a row that no pixel has where the clock overflows.
EVENT_BYTES = 5
OVERFLOW_ROW = 240
OVERFLOW = 2**13  # microseconds

Reader: TypeAlias = Callable[[Path], Recording]


def read_nmnist(path: Path) -> Recording:
    """Read a file of N-MNIST: x, y, then polarity (1 bit) and time (23 bits, in microseconds), most significant first.

    The format is that of https://www.garrickorchard.com/datasets/n-mnist. Raises InvalidData.
    """
    try:
        content = np.frombuffer(read_bytes(path, MAX_FILE_BYTES), np.uint8)
    except OSError as error:
        raise InvalidData(f"'{path}': cannot be read as events: {error.strerror}") from error
    if len(content) % EVENT_BYTES:
        raise InvalidData(f"'{path}': has {len(content)} bytes, expected {EVENT_BYTES} for each event")
    x, y, high, middle, low = content.reshape(-1, EVENT_BYTES).T.astype(np.int64)
    polarity, t = high >> 7, ((high & 0x7F) << 16) | (middle << 8) | low
    overflows = y == OVERFLOW_ROW
    t += OVERFLOW * np.cumsum(overflows)
    events = ~overflows
    return Recording(t[events], make_records(t, x, y, polarity)[events])


def read_gesture(path: Path) -> Recording:
    """Read a file of DVS-Gesture as tonic has it: an array (events, 4) of x, y, polarity and milliseconds."""
    array = read_npy(path)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InvalidData(f"'{path}': has shape {array.shape}, expected (events, 4) of x, y, p and t")
    x, y, polarity, milliseconds = array.astype(np.int64).T
    t = 1000 * milliseconds
    return Recording(t - t.min(initial=t[0]) if len(t) else t, make_records(t, x, y, polarity))


def read_heidelberg(path: Path) -> tuple[Recordings, tuple[str, ...], Groups]:
    """Return the recordings of an h5 file of SHD or SSC, the classes' names, and each one's speaker (n,).

    Raises InvalidData for a file that is none, or whose arrays have different lengths.
    """
    import h5py  # imported here since most data sets do not need it

    with explained(path, "SHD or SSC"), h5py.File(path, "r") as file:
        labels = file["labels"][()].astype(np.int64)
        names = tuple(key.decode() for key in file["extra/keys"][()])
        speakers = file["extra/speaker"][()]
        count = len(file["spikes/times"])
    if not count == len(labels) == len(speakers):
        raise InvalidData(
            f"'{path}': has {count} recordings, {len(labels)} labels and the speakers of {len(speakers)}, expected as "
            "many of each"
        )

    def read(index: int) -> Recording:
        with explained(path, "SHD or SSC"), h5py.File(path, "r") as file:
            seconds, units = file["spikes/times"][index], file["spikes/units"][index]
        t = microseconds(seconds, f"'{path}': recording {index}")
        return Recording(t, make_records(t, units), camera=False)

    return Recordings(labels, read), names, speakers


def microseconds(seconds: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Return times as whole microseconds; of float16 seconds too, whose products with 1e6 float16 cannot hold."""
    t = np.rint(seconds.astype(np.float64) * 1e6)
    if not (np.isfinite(t) & (t >= 0)).all():
        raise InvalidData(f"{where}: a time is {seconds[~(np.isfinite(t) & (t >= 0))][0]} s, expected at least 0")
    return t.astype(np.int64)


@dataclass(frozen=True)
class Part:
    """One split of a data set as it lies on the disk: its recordings, its classes, and what tells it from others.

    `groups` has the speaker of each recording, where they are known.
    """

    recordings: Recordings
    class_names: tuple[str, ...]
    identity: list[Any]
    groups: Groups | None = None


def _of_files(folder: Path, files: Sequence[tuple[Path, int]], read: Reader, class_names: tuple[str, ...]) -> Part:
    for path, label in files:
        if label >= len(class_names):
            raise InvalidData(f"'{path}': is of class {label}, expected 0 to {len(class_names) - 1}")
    labels = np.array([label for _, label in files], np.int64)
    identity = [[path.relative_to(folder).as_posix(), path.stat().st_size] for path, _ in files]
    return Part(Recordings(labels, lambda index: read(files[index][0])), class_names, identity)


def _nmnist(folder: Path, part: str) -> Part:
    paths = sorted((folder / {"train": "Train", "test": "Test"}[part]).glob("[0-9]/*.bin"))
    return _of_files(folder, [(path, int(path.parent.name)) for path in paths], read_nmnist, DIGITS)


def _gestures(folder: Path, part: str) -> Part:
    root = folder / {"train": "ibmGestureTrain", "test": "ibmGestureTest"}[part]
    paths = sorted(path for path in root.glob("user*/*.npy") if path.stem.isdecimal())
    return _of_files(folder, [(path, int(path.stem)) for path in paths], read_gesture, GESTURES)


def _heidelberg(folder: Path, part: str) -> Part:
    path = folder / f"{folder.name.lower()}_{part}.h5"
    if not path.is_file():
        return _of_files(folder, [], read_gesture, ())
    recordings, names, speakers = read_heidelberg(path)
    status = path.stat()
    return Part(recordings, names, [path.name, status.st_size, status.st_mtime_ns, "by speaker"], speakers)


@dataclass(frozen=True)
class EventSet:
    """One of the data sets: its class in tonic, the arguments that give each part, what is known, how it is read."""

    tonic_name: str
    parts: Mapping[str, Mapping[str, Any]]
    known: DatasetFacts
    read: Callable[[Path, str], Part]

    def load(self, config: DataConfig, coding: Coding) -> Dataset:
        """Find the files below the configured folder, or have tonic download them, and bin them; raises InvalidData."""
        folder = config.folder / self.tonic_name
        parts = {part: self._part(folder, part, config) for part in self.parts}
        training, groups = parts["train"].recordings, parts["train"].groups
        if "valid" in parts:
            validation = parts["valid"].recordings
        else:
            kept, held_out = hold_out(training.labels, config.validation_share, config.split_seed, "validation", groups)
            training, validation = training[kept], training[held_out]
        splits = [training, validation, parts["test"].recordings]
        identity = [[part.identity for part in parts.values()], config.validation_share, config.split_seed]
        names = parts["train"].class_names
        return binned(config.dataset, names, splits, identity, config, coding, known=self.known)

    def _part(self, folder: Path, part: str, config: DataConfig) -> Part:
        loaded = self.read(folder, part)
        if not len(loaded.recordings) and config.download:
            self._download(part, config)
            loaded = self.read(folder, part)
        if not len(loaded.recordings):
            raise InvalidData(
                f"dataset: the {part} part of {self.tonic_name} is not in '{folder}'; pass --download, or put "
                "the files there as the package tonic lays them out"
            )
        return loaded

    def _download(self, part: str, config: DataConfig) -> None:
        try:
            import tonic.datasets  # imported here since it takes a second and only a download needs it
        except ImportError as error:
            raise InvalidData(
                "download: the package tonic is not installed, which downloads it; ./scripts/install datasets"
            ) from error
        try:
            getattr(tonic.datasets, self.tonic_name)(save_to=str(config.folder), **self.parts[part])
        except (OSError, RuntimeError, ValueError) as error:
            raise InvalidData(f"download: {self.tonic_name} could not be had: {error}") from error


TRAIN_OR_TEST = {"train": {"train": True}, "test": {"train": False}}
THREE_SPLITS = {part: {"split": part} for part in ("train", "valid", "test")}

EVENT_SETS = {
    "nmnist": EventSet("NMNIST", TRAIN_OR_TEST, DatasetFacts((2, 34, 34), 300_000, 10_000, Origin.ZERO), _nmnist),
    "dvs-gesture": EventSet("DVSGesture", TRAIN_OR_TEST, DatasetFacts((2, 128, 128), 1_500_000, 25_000), _gestures),
    "shd": EventSet("SHD", TRAIN_OR_TEST, DatasetFacts((700,), 1_400_000, 14_000, Origin.ZERO), _heidelberg),
    "ssc": EventSet("SSC", THREE_SPLITS, DatasetFacts((700,), 1_000_000, 10_000, Origin.ZERO), _heidelberg),
}
