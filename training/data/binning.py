"""Binning: recordings of events become rasters of 0 and 1, once; the rasters are kept in a cache on disk.

A time step is a window of so many microseconds. A unit spikes in a step if it has at least one event in that window, as
in a request that sends its events (a repeated event has no effect). The input's `events` say the same for the bundle:
a recording that is sent to it becomes the raster that it would have been in training. Rasters are bytes, and are read
from the disk as they are needed, so that a data set may be larger than the memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.folders import made
from spikeserve.models.spec import Coding, EventBinning, Input, Origin, Polarity
from spikeserve.models.spec.events import MAX_HEIGHT, MAX_STEP_US, MAX_WIDTH
from spikeserve.models.spec.parameters import MAX_STEPS, Shape, show
from spikeserve.training.config import DataConfig
from spikeserve.training.data.dataset import Dataset, Split
from spikeserve.training.data.normalise import method_for
from spikeserve.training.data.numpy_files import read_npy
from spikeserve.training.data.recordings import Recording, Recordings
from spikeserve.training.errors import InvalidData

WINDOW = 10_000  # microseconds
MAX_BYTES = 2**35  # of a data set's rasters
FORMAT = 2  # changes when the same recordings would give other files
PARTS = ("training", "validation", "test")
SENSOR = "sensor.npy"  # its shape, before downsampling
SMALLER = "a longer window, fewer max_steps or a larger downsample make it smaller"


@dataclass(frozen=True)
class Known:
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
    """What recordings are binned into: `shape` after `downsample`, `steps` of `window` microseconds each."""

    shape: Shape
    steps: int
    window: int
    downsample: int
    sensor: Shape = ()

    def raster(self, recording: Recording) -> NDArray[np.uint8]:
        """Return a recording's raster (steps, *shape) of 0 and 1; events after the last step are dropped."""
        step = recording.t // self.window
        kept = step < self.steps
        places = _reduced(recording.places[kept], self.downsample)
        if places.shape[1] != len(self.shape) or (places >= self.shape).any():
            raise InvalidData(f"events: some lie outside of the input's shape {show(self.shape)}")
        raster = np.zeros((self.steps, *self.shape), np.uint8)
        raster[(step[kept], *places.T)] = 1
        return raster


def _reduced(places: NDArray[np.int64], downsample: int) -> NDArray[np.int64]:
    """Return places on a coarser grid: of a camera, rows and columns, not the polarity."""
    return places // np.array([1] * (places.shape[1] == 3) + [downsample] * min(places.shape[1], 2))


def binned(
    name: str,
    class_names: tuple[str, ...],
    splits: Sequence[Recordings],
    identity: Any,
    config: DataConfig,
    coding: Coding,
    *,
    known: Known | None = None,
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
    folder = config.cache / f"{name}-{key}"
    if not folder.is_dir():
        _write(folder, splits, _grid(splits, config, window, known))
    training, validation, test = (_read(folder, part) for part in PARTS)
    origin = known.origin if known else Origin.FIRST_EVENT
    events = event_binning(_read_sensor(folder), window, config.downsample, origin)
    declared = Input(shape=training.samples.shape[2:], low=0, high=1, events=events)
    return Dataset(name, declared, class_names, training, validation, test, dt=window * 1e-6)


def event_binning(sensor: Shape, window: int, downsample: int, origin: Origin) -> EventBinning | None:
    """Return how event records become the rasters of a sensor of this shape, (channels, height, width) or (units,).

    Return None where records cannot hold its events: of more than two polarities, or of a larger sensor or longer
    window than they have bits for. Of one polarity, every event counts.
    """
    channels, size = (1, sensor) if len(sensor) == 1 else (sensor[0], sensor[:0:-1])
    if channels > 2 or window > MAX_STEP_US or any(map(operator.gt, size, (MAX_WIDTH, MAX_HEIGHT))):
        return None
    polarity = Polarity.CHANNELS if channels == 2 else Polarity.MERGED
    return EventBinning(step_us=window, sensor=size, bin=downsample, polarity=polarity, origin=origin)


def _grid(splits: Sequence[Recordings], config: DataConfig, window: int, known: Known | None) -> Grid:
    """Return the grid of a data set; raises InvalidData where its rasters would be too large."""
    if known:
        shape, steps = known.sensor, -(-known.duration // window)
    else:
        shape, last = _extent(splits, config.sensor)
        steps = last // window + 1
    steps, sensor = min(steps, config.max_steps or steps), shape
    sizes = _reduced(np.array([shape]) - 1, config.downsample)[0] + 1
    shape = tuple(int(size) for size in sizes)
    if steps > MAX_STEPS:
        raise InvalidData(
            f"window: {window} microseconds make {steps} time steps of a recording, expected at most {MAX_STEPS}"
        )
    size = sum(map(len, splits)) * steps * math.prod(shape)
    if size > MAX_BYTES:
        raise InvalidData(
            f"events: {sum(map(len, splits))} rasters of {steps}×{show(shape)} are {size:,} bytes, expected at most "
            f"{MAX_BYTES:,}; {SMALLER}"
        )
    return Grid(shape, steps, window, config.downsample, sensor)


def _extent(splits: Sequence[Recordings], sensor: Shape | None) -> tuple[Shape, int]:
    """Return the shape that holds every event, and the time of the last one."""
    last, furthest = -1, None
    for split in splits:
        for index in range(len(split)):
            recording = split.read(index)
            if len(recording.t):
                last = max(last, int(recording.t.max()))
                reached = recording.places.max(axis=0)
                furthest = _further(furthest, reached)
    if furthest is None:
        raise InvalidData("events: no recording holds an event")
    shape = tuple(int(place) + 1 for place in furthest) if sensor is None else sensor
    if len(shape) != len(furthest) or any(place >= size for place, size in zip(furthest, shape, strict=True)):
        reach = show(tuple(int(place) + 1 for place in furthest))
        raise InvalidData(f"sensor: is {show(shape)}, but events reach as far as {reach}")
    return shape, last


def _further(one: NDArray[np.int64] | None, other: NDArray[np.int64]) -> NDArray[np.int64]:
    if one is not None and len(one) != len(other):
        raise InvalidData("events: some recordings have x, y and p, and others have unit; expected all alike")
    return other if one is None else np.maximum(one, other)


def _write(folder: Path, splits: Sequence[Recordings], grid: Grid) -> None:
    """Bin every split into a temporary folder, which is renamed, so that nobody reads half of it."""
    with made(folder.parent):
        _bin(folder, splits, grid)


def _bin(folder: Path, splits: Sequence[Recordings], grid: Grid) -> None:
    size, free = sum(map(len, splits)) * grid.steps * math.prod(grid.shape), shutil.disk_usage(folder.parent).free
    if size > free:
        raise InvalidData(f"cache: the rasters are {size:,} bytes, but '{folder.parent}' has {free:,} left; {SMALLER}")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        np.save(temporary / SENSOR, np.array(grid.sensor), allow_pickle=False)
        for part, split in zip(PARTS, splits, strict=True):
            shape = (len(split), grid.steps, *grid.shape)
            rasters = np.lib.format.open_memmap(temporary / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)
            for index in range(len(split)):
                rasters[index] = grid.raster(split.read(index))
            rasters.flush()
            np.save(temporary / f"{part}-labels.npy", split.labels, allow_pickle=False)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another run was first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(folder: Path, part: str) -> Split:
    return Split(_load(folder / f"{part}.npy", mapped=True), _load(folder / f"{part}-labels.npy"))


def _read_sensor(folder: Path) -> Shape:
    return tuple(map(int, _load(folder / SENSOR)))


def _load(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    try:
        return read_npy(path, mapped=mapped)
    except InvalidData as error:
        raise InvalidData(f"cache: '{path.parent}' cannot be read, delete it: {error}") from error
