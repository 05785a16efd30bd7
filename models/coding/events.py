"""Events as a client sends them, checked and made the inputs of a network of `spikes` coding.

An event sets its unit at its step to the greatest value of the unit's declared range; repeating it has no effect.
Where no event is, the raw value is 0. If a unit's 0 is a current after the input's normalisation, or is outside the
declared range, nothing is saved by events: such inputs are encoded as a dense raster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.encode import encode
from spikeserve.models.coding.inputs import EventInputs, Inputs, Ints, offsets, unless_ones
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import EventRule, Input, OutOfRange, Spec
from spikeserve.models.spec.network import FloatArray


@dataclass(frozen=True)
class Events:
    """A sample as events: at step `t[k]`, input `unit[k]` (the index into the flattened shape) spikes once.

    Both are lists of integers, or arrays (events,) of them.
    """

    t: Sequence[int] | NDArray[np.integer[Any]]
    unit: Sequence[int] | NDArray[np.integer[Any]]


def encode_events(events: Sequence[Events], task: Spec, time_steps: int | None = None) -> Inputs:
    """Encode samples that were sent as events, for as many steps as the task has, if `time_steps` does not say.

    Raises InvalidInput for fields of different lengths, a step or a unit out of range, and a number of steps that the
    model cannot run.
    """
    steps = task.time_steps if time_steps is None else time_steps
    if steps < 1:
        raise InvalidInput(f"time_steps is {steps}, expected at least 1")
    task.check_steps(steps)
    current = _currents(task.input)
    if current is None:
        return encode(rasterise(events, task, steps), task, steps)
    units = math.prod(task.input.shape)
    row, unit = np.divmod(_places(events, steps, units), units)
    return _inputs(row, unit, _of_units(current, unit, task.input), len(events), steps, task.input)


def _of_units(values: FloatArray, unit: Ints, declared: Input) -> FloatArray:
    """Return one of `values`, which broadcast to the input's shape, for each unit (events,)."""
    spread = values if values.ndim == 0 else np.broadcast_to(values, declared.shape).reshape(-1)[unit]
    return np.broadcast_to(spread, unit.shape)


def _inputs(row: Ints, unit: Ints, value: FloatArray, batch: int, time_steps: int, declared: Input) -> EventInputs:
    """Return the inputs of events (events,) in order of row and unit, by their currents."""
    if not value.all():  # an event of a unit whose scale is 0 changes nothing
        row, unit, value = row[value != 0], unit[value != 0], value[value != 0]
    rows = offsets(row, batch * time_steps)
    return EventInputs(unit.astype(np.int32), unless_ones(value), rows, time_steps, declared.shape)


class EventCoder:
    """Encodes a sensor's events that were binned, for models of `task`; what its input says is worked out once."""

    def __init__(self, task: Spec) -> None:
        self.task = task
        declared = task.input
        self.counts = declared.events is not None and declared.events.rule is EventRule.COUNT
        self.high = declared.range[1]
        self.currents = _currents(declared)
        alike = not self.counts and self.currents is not None and self.currents.ndim == 0 and self.currents != 0
        self.current = np.float32(self.currents) if alike else None  # of every event, where they are alike

    def encode(self, t: Ints, unit: Ints, count: Ints, time_steps: int) -> Inputs:
        """Encode one sample of events, as the input's `events` say, for `time_steps` steps.

        At step `t[k]`, the input `unit[k]` had `count[k]` events: all (events,), in order of step and unit, each pair
        once. Under the rule `clip` an event is the greatest value of its unit's range; under `count` their number is
        the raw value, which must be within the range, or is clipped to it where the input clips. Raises InvalidInput.
        """
        self.task.check_steps(time_steps)
        declared = self.task.input
        if self.current is not None:
            value: FloatArray = np.full(0 if self.current == 1 else len(unit), self.current)
            return EventInputs(unit.astype(np.int32), value, offsets(t, time_steps), time_steps, declared.shape)
        most = _of_units(self.high, unit, declared)
        raw = _within(t, unit, count, most, declared) if self.counts else most
        if self.currents is None:
            raster = np.zeros((time_steps, math.prod(declared.shape)), np.float32)
            raster[t, unit] = raw
            return encode(raster.reshape(1, time_steps, *declared.shape), self.task, time_steps)
        return _inputs(t, unit, declared.normalise(raw, unit), 1, time_steps, declared)


def _within(t: Ints, unit: Ints, count: Ints, most: FloatArray, declared: Input) -> FloatArray:
    """Return counts as raw values (events,), clipped or refused where they are beyond `most`."""
    raw = count.astype(np.float32)
    if declared.out_of_range is OutOfRange.CLIP:
        return np.minimum(raw, most)
    if (raw > most).any():
        at = int(np.argmax(raw > most))
        place = "".join(f"[{index}]" for index in np.unravel_index(unit[at], declared.shape))
        raise InvalidInput(
            f"inputs[0][{t[at]}]{place} is {count[at]}, expected {declared.range[0].min():g} to {most[at]:g}"
        )
    return raw


def rasterise(events: Sequence[Events], task: Spec, time_steps: int | None = None) -> FloatArray:
    """Return the rasters (batch, time_steps, *input shape), of raw values, of samples that were sent as events.

    Raises InvalidInput for fields of different lengths and for a step or unit out of range.
    """
    steps = task.time_steps if time_steps is None else time_steps
    units = math.prod(task.input.shape)
    place = _places(events, steps, units)
    rasters = np.zeros(len(events) * steps * units, np.float32)
    rasters[place] = np.broadcast_to(task.input.range[1], task.input.shape).reshape(-1)[place % units]
    return rasters.reshape(len(events), steps, *task.input.shape)


def _currents(declared: Input) -> FloatArray | None:
    """Return the current of each unit's event, an array that spreads over the shape; None if there are others."""
    low, high = declared.range
    if (low > 0).any() or (high < 0).any() or declared.normalise(np.zeros_like(low)).any():
        return None
    return np.asarray(declared.normalise(high))


def _places(events: Sequence[Events], steps: int, units: int) -> Ints:
    """Return where the events lie in the flattened rasters of all samples, ascending and each once."""
    of_samples: list[Ints] = []
    for sample, event in enumerate(events):
        if len(event.t) != len(event.unit):
            raise InvalidInput(
                f"inputs[{sample}]: {len(event.t)} t for {len(event.unit)} unit, expected as many of both"
            )
        t = indices(event.t, steps, f"inputs[{sample}].t")
        of_samples.append((sample * steps + t) * units + indices(event.unit, units, f"inputs[{sample}].unit"))
    places = np.sort(np.concatenate([np.empty(0, np.int64), *of_samples]))
    if places.size:
        again = places[1:] == places[:-1]
        if again.any():
            places = places[np.append(True, ~again)]
    return places


def indices(values: Sequence[int] | NDArray[np.integer[Any]], limit: int, where: str) -> Ints:
    """Return integers from 0 up to `limit`, which is not one of them; raises InvalidInput for the first that is not."""
    try:
        integers = np.asarray(values, np.int64)
    except OverflowError:
        integers = None
    if integers is not None and (not integers.size or (integers.min() >= 0 and integers.max() < limit)):
        return integers
    place = next(k for k, value in enumerate(values) if not 0 <= value < limit)
    raise InvalidInput(f"{where}[{place}] is {values[place]}, expected 0 to {limit - 1}")
