"""A network's inputs, after coding: a dense array, or the events of samples that are not zero in a few places only.

Both kinds are sliced, joined and cut into steps alike, and every engine gives both the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape, show

Samples: TypeAlias = slice | NDArray[np.intp]  # which samples of a batch, by a slice or by their places
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class DenseInputs:
    """Dense inputs: `steps` (time_steps, batch, *shape), or (1, batch, *shape) where every step is the same."""

    steps: FloatArray
    time_steps: int

    def __post_init__(self) -> None:
        if self.steps.ndim < 2 or self.steps.shape[0] not in (1, self.time_steps):
            raise InvalidInput(
                f"encoded inputs: shape is {show(self.steps.shape)}, "
                f"expected 1 or {self.time_steps} steps first and then the batch"
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.batch

    @property
    def batch(self) -> int:
        """The number of samples."""
        return self.steps.shape[1]

    @property
    def constant(self) -> bool:
        """Whether the input is the same at every step."""
        return self.steps.shape[0] == 1

    @property
    def nbytes(self) -> int:
        """The bytes of its array."""
        return self.steps.nbytes

    def __getitem__(self, samples: Samples) -> DenseInputs:
        """Return the inputs of some of the samples, which an array of their places may give in any order."""
        return DenseInputs(self.steps[:, samples], self.time_steps)

    def between(self, first: int, end: int) -> DenseInputs:
        """Return the steps from `first` up to `end`."""
        return DenseInputs(self.steps if self.constant else self.steps[first:end], end - first)

    def dense(self) -> DenseInputs:
        """Return itself."""
        return self

    @classmethod
    def joined(cls, parts: Sequence[DenseInputs]) -> DenseInputs:
        """Concatenate inputs of the same coding and time steps, at least one, into one batch."""
        first, *others = parts
        if not others:
            return first
        return cls(np.concatenate([part.steps for part in parts], axis=1), first.time_steps)


@dataclass(frozen=True)
class EventInputs:
    """Inputs as events, which is what is not zero, as the current that it is after normalisation.

    A row is one step of one sample, sample * time_steps + step. The events of row r are those from offset[r] to
    offset[r + 1]: `unit` (events,) int32 is the index into the flattened `shape` of a step, ascending in each row and
    each at most once; `value` (events,) float32 is its current, or is empty where all are 1. `offset` is (batch *
    time_steps + 1,) int64.
    """

    unit: NDArray[np.int32]
    value: FloatArray
    offset: Ints
    time_steps: int
    shape: Shape

    def __post_init__(self) -> None:
        if self.time_steps < 1 or (self.offset.size - 1) % self.time_steps:
            raise InvalidInput(
                f"event inputs: there are {self.offset.size - 1} rows, expected {self.time_steps} for each sample"
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.batch

    @property
    def batch(self) -> int:
        """The number of samples."""
        return (self.offset.size - 1) // self.time_steps

    @property
    def constant(self) -> bool:
        """Whether the input is the same at every step, which nothing here says."""
        return False

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays."""
        return self.unit.nbytes + self.value.nbytes + self.offset.nbytes

    @cached_property
    def units(self) -> int:
        """The number of values of a step of one sample."""
        return math.prod(self.shape)

    @property
    def row(self) -> Ints:
        """The row of each event (events,)."""
        return np.repeat(np.arange(self.offset.size - 1), np.diff(self.offset))

    def __getitem__(self, samples: Samples) -> EventInputs:
        """Return the inputs of some of the samples, which an array of their places may give in any order."""
        places = range(*samples.indices(self.batch)) if isinstance(samples, slice) else samples
        return self._taken(np.asarray(places, np.int64) * self.time_steps, self.time_steps)

    def between(self, first: int, end: int) -> EventInputs:
        """Return the steps from `first` up to `end`."""
        return self._taken(np.arange(self.batch) * self.time_steps + first, end - first)

    def _taken(self, first: Ints, time_steps: int) -> EventInputs:
        """Return so many rows from each of some first ones, as the samples of others."""
        if first.size == 1 or (first.size and (np.diff(first) == time_steps).all()):  # then they are neighbours
            rows = slice(first[0], first[-1] + time_steps + 1)
            offset = self.offset[rows]
            events = slice(offset[0], offset[-1])
            return EventInputs(self.unit[events], self.value[events], offset - offset[0], time_steps, self.shape)
        begin, end = self.offset[first], self.offset[first + time_steps]
        before = np.concatenate([[0], np.cumsum(end - begin)])  # events of the samples before each
        events_at = np.arange(before[-1]) + np.repeat(begin - before[:-1], end - begin)
        starts = self.offset[first[:, np.newaxis] + np.arange(time_steps)] + (before[:-1] - begin)[:, np.newaxis]
        offset = np.append(starts.ravel(), before[-1])
        value = self.value[events_at] if self.value.size else self.value
        return EventInputs(self.unit[events_at], value, offset, time_steps, self.shape)

    def dense(self) -> DenseInputs:
        """Return the same as a dense array, which takes 4 bytes for each value of each step."""
        steps = np.zeros((self.time_steps, self.batch, self.units), np.float32)
        sample, step = np.divmod(self.row, self.time_steps)
        steps[step, sample, self.unit] = self.value if self.value.size else 1
        return DenseInputs(steps.reshape(self.time_steps, self.batch, *self.shape), self.time_steps)

    @classmethod
    def of(cls, inputs: Inputs) -> EventInputs:
        """Return inputs as events; dense ones, of which no step stands for others, as what is not zero in them."""
        if isinstance(inputs, EventInputs):
            return inputs
        steps = np.broadcast_to(inputs.steps, (inputs.time_steps, *inputs.steps.shape[1:]))
        shape = inputs.steps.shape[2:]
        flat = steps.reshape(inputs.time_steps, inputs.batch, math.prod(shape)).swapaxes(0, 1)
        sample, step, unit = flat.nonzero()
        offset = offsets(sample * inputs.time_steps + step, inputs.batch * inputs.time_steps)
        return cls(unit.astype(np.int32), unless_ones(flat[sample, step, unit]), offset, inputs.time_steps, shape)

    @classmethod
    def joined(cls, parts: Sequence[EventInputs]) -> EventInputs:
        """Concatenate inputs of the same shape and time steps, at least one, into one batch."""
        first, *others = parts
        if not others:
            return first
        value = first.value
        if any(part.value.size for part in parts):
            values = [part.value if part.value.size else np.ones(part.unit.size, np.float32) for part in parts]
            value = np.concatenate(values)
        offset = np.concatenate([first.offset, *(part.offset[1:] for part in others)])
        end, before = first.offset.size, first.unit.size
        for part in others:
            offset[end : (end := end + part.offset.size - 1)] += before
            before += part.unit.size
        return cls(np.concatenate([part.unit for part in parts]), value, offset, first.time_steps, first.shape)


Inputs: TypeAlias = DenseInputs | EventInputs


def join_inputs(parts: Sequence[Inputs]) -> Inputs:
    """Concatenate inputs of one network and the same time steps, at least one, into one batch.

    Where some are dense and some are events all become events, as a few dense samples could otherwise make many large.
    """
    dense = [part for part in parts if isinstance(part, DenseInputs)]
    if len(dense) == len(parts):
        return DenseInputs.joined(dense)
    return EventInputs.joined([EventInputs.of(part) for part in parts])


def offsets(row: NDArray[Any], rows: int) -> Ints:
    """Return where the events of each of so many rows begin, and where the last ends; `row` is ascending."""
    if rows == 1:
        return np.array([0, len(row)])
    return np.searchsorted(row, np.arange(rows + 1)).astype(np.int64, copy=False)


def unless_ones(value: FloatArray) -> FloatArray:
    """Return values as an array of their own, or an empty one where all of them are 1."""
    return np.empty(0, np.float32) if (value == 1).all() else np.ascontiguousarray(value, np.float32)
