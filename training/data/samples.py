"""The samples of a user's arrays: numbers without gaps, at equal steps, and of the lengths that `lengths` says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import MAX_STEPS, show
from spikeserve.training.data.dataset import Lengths
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import memory

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

GAPS = "expected finite numbers: fill gaps by np.interp, as docs/data.md shows, and leave out padding by lengths"
UNEVEN = 0.01  # of a step: how far times may be from equal steps


def read_samples(named: Arrays, name: str, coding: Coding) -> tuple[FloatArray, Lengths | None]:
    """Return the samples of the array `name`, and their lengths where the file has them, padded with zeros.

    Raises InvalidData with one sentence for whatever cannot be trained on.
    """
    samples = named[name]
    if samples.dtype.kind not in "biuf":
        raise InvalidData(f"{name}: type is {samples.dtype}, expected numbers")
    if not samples.size:
        raise InvalidData(f"{name}: holds no sample, its shape is {show(samples.shape)}")
    lengths = _lengths(named, name, coding)
    in_a_row = lengths is not None and len(samples) != len(lengths)
    if samples.ndim < 2 + coding.per_step - in_a_row:
        expected = "(n, time, …)" if coding.per_step else "(n, …)"
        raise InvalidData(f"{name}: shape is {show(samples.shape)}, expected {expected} with coding '{coding}'")
    with np.errstate(over="ignore"):
        samples = samples.astype(np.float32)
    if lengths is not None:
        samples = _padded(samples, lengths)
    if not np.isfinite(samples).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(samples))[0])
        expected = GAPS if np.isnan(samples[where]) else "expected finite numbers"
        raise InvalidData(f"{name}: the value at {where} is {samples[where]}, {expected}")
    if coding.per_step:
        _check_times(named, name, lengths)
    return samples, lengths


def _lengths(named: Arrays, name: str, coding: Coding) -> Lengths | None:
    """Return the steps of each sample of the array `name`, if the file says them and they fit it."""
    samples, name, of = named[name], name.replace("x", "lengths", 1), name
    if name not in named:
        return None
    lengths = named[name]
    if not coding.per_step:
        raise InvalidData(f"{name}: samples have no time with coding '{coding}', expected spikes or current")
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or not lengths.size:
        raise InvalidData(f"{name}: {lengths.dtype} of shape {show(lengths.shape)}, expected n whole numbers")
    most = samples.shape[1] if len(lengths) == len(samples) and samples.ndim > 1 else min(len(samples), MAX_STEPS)
    wrong = np.flatnonzero((lengths < 1) | (lengths > most))
    if wrong.size:
        raise InvalidData(f"{name}: sample {wrong[0]} has {lengths[wrong[0]]} steps, expected 1 to {most}")
    total = int(lengths.sum())
    if len(samples) not in (len(lengths), total):
        raise InvalidData(
            f"{name}: there are {len(lengths)}, which add up to {total}, and {of} has {len(samples)} rows; expected a "
            "row for each sample, padded, or one for each step of one sample after the other"
        )
    size = 4 * len(lengths) * int(lengths.max()) * math.prod(samples.shape[1 + (len(lengths) == len(samples)) :])
    if size > memory():
        raise InvalidData(
            f"{name}: sample {lengths.argmax()} has {lengths.max()} steps; padded to as many, all take {size} bytes, "
            f"expected at most {memory()}, which is the memory"
        )
    return lengths.astype(np.int64)


def _padded(steps: NDArray[Any], lengths: Lengths) -> NDArray[Any]:
    """Return samples (n, longest, …), padded with zeros, of padded ones or of steps in a row."""
    own = np.arange(lengths.max()) < lengths[:, np.newaxis]
    in_a_row = len(steps) != len(lengths)
    padded = np.zeros((*own.shape, *steps.shape[2 - in_a_row :]), steps.dtype)
    padded[own] = steps if in_a_row else steps[:, : own.shape[1]][own]
    return padded


def _check_times(named: Arrays, name: str, lengths: Lengths | None) -> None:
    """Raise InvalidData where an array beside the samples says that their steps are not equally far apart."""
    name, shape = name.replace("x", "time", 1), named[name].shape
    in_a_row = lengths is not None and shape[0] != len(lengths)
    for_each, for_all = shape[: 1 if in_a_row else 2], () if in_a_row else shape[1:2]
    times = named.get(name, np.zeros(()))
    if times.dtype.kind not in "iufM" or times.shape not in (for_each, for_all) or not times.ndim:
        return
    times = times.astype(np.float64)
    steps = np.diff(times if lengths is None or times.shape == for_all else _padded(times, lengths), axis=-1)
    if lengths is not None and steps.ndim > 1:
        steps = steps[np.arange(steps.shape[1]) < lengths[:, np.newaxis] - 1]
    if steps.size and not np.ptp(steps) <= UNEVEN * abs(np.median(steps)):
        raise InvalidData(
            f"{name}: its steps are from {steps.min():g} to {steps.max():g} long, expected equal ones: interpolate the "
            "samples at equal times by np.interp, as docs/data.md shows"
        )
