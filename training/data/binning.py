"""Recordings of events, and binning: they become rasters of 0 and 1, once, which are kept in a cache on disk.

A time step is a window of so many microseconds. A unit spikes in a step if it has at least one event in that window.
The input's `events` say so, here and in the bundle: a recording that is sent to it becomes the raster that it was in
training. Rasters are bytes, and are read from the disk as they are needed, so that a data set may be larger than the
memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.records import ON, Records, Times, binner, make_records
from spikeserve.models.errors import InvalidInput
from spikeserve.models.folders import appearing, made
from spikeserve.models.recordings.files import read_events
from spikeserve.models.spec import Coding, EventBinning, Input, Origin, Polarity, validated
from spikeserve.models.spec.parameters import MAX_STEPS, Shape, show
from spikeserve.training.config import DataConfig
from spikeserve.training.data.dataset import Dataset, Labels, Split
from spikeserve.training.data.normalise import method_for
from spikeserve.training.data.numpy_files import read_npy
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import require_plain

WINDOW = 10_000  # microseconds
MAX_BYTES = 2**35  # of a data set's rasters
FORMAT = 3  # changes when the same recordings would give other files
PARTS = ("training", "validation", "test")
SENSOR = "sensor.npy"  # its shape, before downsampling
SMALLER = "a longer window, fewer max_steps or a larger downsample make it smaller"
MAX_FILE_BYTES = 2**28  # of a recording


@dataclass(frozen=True)
class Recording:
    """The events of one sample: their records, and their times `t` in microseconds from its start, both (events,).

    They are a camera's, of columns, rows and polarities, or of units.
    """

    t: Times
    records: Records
    camera: bool = True


@dataclass(frozen=True)
class Recordings:
    """Labelled recordings that are read one at a time."""

    labels: Labels
    read: Callable[[int], Recording]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Recordings:
        """Return some of the recordings."""
        return Recordings(self.labels[chosen], lambda index: self.read(int(chosen[index])))


def read_recording(path: Path) -> Recording:
    """Read a file of events; its first event is at time 0. Raises InvalidData with a sentence that names the file."""
    try:
        require_plain(path, MAX_FILE_BYTES)
        columns = read_events(path)
    except OSError as error:
        raise InvalidData(f"'{path}' cannot be read as events: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidData(str(error)) from error
    t = columns["t"]
    if len(t):
        t = t - t.min()
    if "unit" in columns:
        return Recording(t, make_records(t, columns["unit"]), camera=False)
    return Recording(t, make_records(t, columns["x"], columns["y"], columns.get("p", 0)))


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a data set: its sensor's shape, how long its recordings last, and the usual window.

    Both times are in microseconds; events after `duration` are dropped. `origin` says whether recordings begin at their
    first event or at time 0.
    """

    sensor: Shape
    duration: int
    window: int
    origin: Origin = Origin.FIRST_EVENT


@dataclass(frozen=True)
class Grid:
    """What recordings are binned into: so many `steps`, each as `events` says, of a sensor of this shape."""

    events: EventBinning
    steps: int
    sensor: Shape

    @property
    def shape(self) -> Shape:
        """The shape of a step: (channels, height, width), or (units,)."""
        return self.events.shape if len(self.sensor) == 3 else self.events.shape[1:]

    def raster(self, recording: Recording) -> NDArray[np.uint8]:
        """Return a recording's raster (steps, *shape) of 0 and 1; events after the last step are dropped."""
        try:
            events = binner(self.events).between(recording.records, recording.t, 0, self.steps, "a recording")
        except InvalidInput as error:
            raise InvalidData(str(error)) from error
        raster = np.zeros((self.steps, math.prod(self.shape)), np.uint8)
        raster[events.t, events.unit] = 1
        return raster.reshape(self.steps, *self.shape)


def binned(
    name: str,
    class_names: tuple[str, ...],
    splits: Sequence[Recordings],
    identity: Any,
    config: DataConfig,
    coding: Coding,
    *,
    known: DatasetFacts | None = None,
) -> Dataset:
    """Return a data set of three splits of recordings, from the cache or binned into it.

    `identity` is JSON that tells these recordings from others, their sizes and times included. `known` is what is known
    of a data set; of others, every recording is looked through first. Raises InvalidData.
    """
    if coding is not Coding.SPIKES:
        raise InvalidData(f"coding: is '{coding}', but dataset '{config.dataset}' holds events, expected spikes")
    method_for(config, coding)
    window = config.window or (known.window if known else WINDOW)
    settings = [FORMAT, identity, config.sensor, window, config.max_steps, config.downsample]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    folder = config.folder / ".cache" / f"{name}-{key}"
    if not folder.is_dir():
        grid = _grid(splits, config, window, known)
        with made(folder.parent):
            _write(folder, splits, grid)
    training, validation, test = (_read(folder, part) for part in PARTS)
    sensor = tuple(map(int, _load(folder / SENSOR)))
    events = event_binning(sensor, window, config.downsample, known)
    declared = Input(shape=training.samples.shape[2:], low=0, high=1, events=events)
    return Dataset(name, declared, class_names, training, validation, test, dt=window * 1e-6)


def event_binning(sensor: Shape, window: int, downsample: int, known: DatasetFacts | None = None) -> EventBinning:
    """Return how event records become the rasters of a sensor of this shape, (channels, height, width) or (units,).

    Of one channel, every event counts. Raises InvalidData for a sensor or a window that records have no bits for.
    """
    channels, size = (1, sensor) if len(sensor) == 1 else (sensor[0], sensor[:0:-1])
    if channels > 2 or len(sensor) == 2:
        raise InvalidData(f"sensor: is {show(sensor)}, expected 1 or 2 polarities, height and width, or units")
    polarity = Polarity.CHANNELS if channels == 2 else Polarity.MERGED
    origin = known.origin if known else Origin.FIRST_EVENT
    fields = {"step_us": window, "sensor": size, "bin": downsample, "polarity": polarity, "origin": origin}
    return validated(InvalidData, "events", EventBinning, **fields)


def _grid(splits: Sequence[Recordings], config: DataConfig, window: int, known: DatasetFacts | None) -> Grid:
    """Return the grid of a data set; raises InvalidData where its rasters would be too large."""
    if known:
        sensor, steps = known.sensor, -(-known.duration // window)
    else:
        sensor, last = _extent(splits, config.sensor)
        steps = last // window + 1
    steps = min(steps, config.max_steps or steps)
    grid = Grid(event_binning(sensor, window, config.downsample, known), steps, sensor)
    if steps > MAX_STEPS:
        raise InvalidData(
            f"window: {window} microseconds make {steps} time steps of a recording, expected at most {MAX_STEPS}"
        )
    size = sum(map(len, splits)) * steps * math.prod(grid.shape)
    if size > MAX_BYTES:
        raise InvalidData(
            f"events: {sum(map(len, splits))} rasters of {steps}×{show(grid.shape)} are {size:,} bytes, expected at "
            f"most {MAX_BYTES:,}; {SMALLER}"
        )
    return grid


def _extent(splits: Sequence[Recordings], sensor: Shape | None) -> tuple[Shape, int]:
    """Return the shape that holds every event, and the time of the last one."""
    last, reached = -1, set[Shape]()
    for split in splits:
        for index in range(len(split)):
            recording = split.read(index)
            if len(recording.t):
                last = max(last, int(recording.t.max()))
                reached.add(_reach(recording))
    if not reached:
        raise InvalidData("events: no recording holds an event")
    if len({*map(len, reached)}) > 1:
        raise InvalidData("events: some recordings have x, y and p, and others have unit; expected all alike")
    reach = tuple(map(max, zip(*reached, strict=True)))
    shape = reach if sensor is None else sensor
    if len(shape) != len(reach) or any(place > size for place, size in zip(reach, shape, strict=True)):
        raise InvalidData(f"sensor: is {show(shape)}, but events reach as far as {show(reach)}")
    return shape, last


def _reach(recording: Recording) -> Shape:
    """Return the smallest sensor that holds a recording's events."""
    x, y = recording.records["x"], recording.records["y"]
    if not recording.camera:
        return (int(x.max()) + 1,)
    return 1 + int(y.max() >= ON), int((y % ON).max()) + 1, int(x.max()) + 1


def _write(folder: Path, splits: Sequence[Recordings], grid: Grid) -> None:
    """Bin every split into a temporary folder, which is renamed, so that nobody reads half of it."""
    size, free = sum(map(len, splits)) * grid.steps * math.prod(grid.shape), shutil.disk_usage(folder.parent).free
    if size > free:
        raise InvalidData(f"cache: the rasters are {size:,} bytes, but '{folder.parent}' has {free:,} left; {SMALLER}")
    try:
        with appearing(folder) as temporary:
            np.save(temporary / SENSOR, np.array(grid.sensor), allow_pickle=False)
            for part, split in zip(PARTS, splits, strict=True):
                shape = (len(split), grid.steps, *grid.shape)
                rasters = np.lib.format.open_memmap(temporary / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)
                for index in range(len(split)):
                    rasters[index] = grid.raster(split.read(index))
                rasters.flush()
                np.save(temporary / f"{part}-labels.npy", split.labels, allow_pickle=False)
    except OSError:
        if not folder.is_dir():  # otherwise another run was first
            raise


def _read(folder: Path, part: str) -> Split:
    return Split(_load(folder / f"{part}.npy", mapped=True), _load(folder / f"{part}-labels.npy"))


def _load(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    try:
        return read_npy(path, mapped=mapped)
    except InvalidData as error:
        raise InvalidData(f"cache: '{path.parent}' cannot be read, delete it: {error}") from error
