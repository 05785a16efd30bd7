"""Turn the samples of a request into arrays, or into inputs where they are events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spikeserve.models.coding import Events, Inputs, encode_events, indices, rasterise
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Task
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show
from spikeserve.service.inference.decoding.validation import channels_hint
from spikeserve.service.inference.protocols.native.schemas import PixelEvents, UnitEvents


def to_samples(samples: Sequence[Any], task: Task, time_steps: int) -> FloatArray | Inputs:
    """Return samples of numbers as raw values, and samples of events as inputs, which need no encoding.

    Values are (batch, *shape), or (batch, time_steps, *shape) for `spikes` and `current` coding. Each sample is nested
    like the task's input, flat, or a list of events; or all are one array. Where rasters are among the events, all
    become rasters. Raises InvalidInput, which names the sample.
    """
    shape = task.input.shape
    if task.coding is not Coding.SPIKES:
        return _stacked(samples, shape, (time_steps,) if task.coding.per_step else ())
    if all(isinstance(sample, list | np.ndarray) for sample in samples):
        return _stacked(samples, shape, (time_steps,))
    events = [_events(sample, task, f"inputs[{index}]") for index, sample in enumerate(samples)]
    if not any(isinstance(sample, list) for sample in samples):
        return encode_events(events, task, time_steps)
    rasters = rasterise(events, task, time_steps)
    for index, sample in enumerate(samples):
        if isinstance(sample, list):
            rasters[index] = _array(sample, shape, (time_steps,), f"inputs[{index}]")
    return rasters


def _events(sample: UnitEvents | PixelEvents | list[Any], task: Task, where: str) -> Events:
    if isinstance(sample, list):
        return Events([], [])
    if isinstance(sample, UnitEvents):
        return Events(sample.t, sample.unit)
    channels, height, width = task.input.shape
    places = []
    for name, values, limit in (("x", sample.x, width), ("y", sample.y, height), ("p", sample.p, channels)):
        if len(values) != len(sample.t):
            raise InvalidInput(f"{where}: {len(sample.t)} t for {len(values)} {name}, expected as many of both")
        places.append(indices(values, limit, f"{where}.{name}"))
    x, y, p = places
    return Events(sample.t, (p * height + y) * width + x)


def _stacked(samples: Sequence[Any], shape: Shape, time_steps: Shape = ()) -> FloatArray:
    """Return samples of numbers as (batch, *time_steps, *shape); raises InvalidInput for the first that is wrong."""
    wanted = (*time_steps, *shape)
    try:
        stacked = np.array(samples, np.float32)
    except ValueError:  # they differ in length, or are nested and flat
        stacked = None
    if stacked is not None and stacked.shape[1:] in (wanted, (*time_steps, math.prod(shape))):
        return stacked.reshape(len(stacked), *wanted)
    return np.stack([_array(sample, shape, time_steps, f"inputs[{index}]") for index, sample in enumerate(samples)])


def _array(sample: Sequence[Any], shape: Shape, time_steps: Shape, where: str) -> FloatArray:
    wanted = (*time_steps, *shape)
    try:
        array = np.array(sample, np.float32)
    except ValueError as error:
        raise InvalidInput(f"{where} has rows of different lengths, expected shape {show(wanted)}") from error
    flat = (*time_steps, math.prod(shape))
    if array.shape not in (wanted, flat):
        either = f"{show(wanted)}" if wanted == flat else f"{show(wanted)}, or {show(flat)} flat"
        raise InvalidInput(
            f"{where} has shape {show(array.shape)}, expected {either}{channels_hint(array.shape, shape)}"
        )
    return array.reshape(wanted)
