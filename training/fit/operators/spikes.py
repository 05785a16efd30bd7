"""Spikes on their way between layers: lists of events, and an edge of autograd's graph that carries their gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.engines.event.event_kernels import find_events
from models.engines.event.layouts import padded
from models.engines.event.vectors import LANES
from models.spec.network import FloatArray
from models.spec.parameters import Shape
from training.fit.operators.compiled import Kernel
from training.fit.operators.products import fill_rows, list_fired, rows_of_units
from training.fit.operators.threads import in_parts

NO_FLOATS: FloatArray = np.empty(0, np.float32)
NO_PLACES: NDArray[np.int32] = np.empty(0, np.int32)


class Events(NamedTuple):
    """What is not 0, row after row: `index` (events,), `value` (events,) or empty for ones, `offset` (rows + 1)."""

    index: NDArray[np.int32]  # type: ignore[assignment]  # a tuple's own method of that name is not used
    value: FloatArray
    offset: NDArray[np.int64]


@dataclass(eq=False)
class Spikes:
    """The spikes of a layer, or an input that is mostly 0, as (time_steps, batch, *shape).

    Row step * batch + sample of `events` has the units that spike. `carrier` has that shape, but no storage: it is the
    edge of autograd's graph at which the spikes' gradient, a float tensor of the same shape, arrives. `rate` is their
    mean with a gradient that is one number, where they are of a layer of neurons.
    """

    shape: tuple[int, ...]
    events: Events
    carrier: Tensor
    rate: Tensor | None = field(default=None)

    @classmethod
    def of(cls, raster: Tensor) -> Spikes:
        """List what is not 0 in a raster (time_steps, batch, *shape), float32 on the CPU, that needs no gradient."""
        rows, units = raster.shape[0] * raster.shape[1], math.prod(raster.shape[2:])
        flat = raster.detach().contiguous().view(-1).numpy()
        index, value = np.empty(flat.size + LANES, np.int32), np.empty(flat.size, np.float32)
        offset = np.empty(rows + 1, np.int64)
        ones = _find(flat, 1, rows, 0, units, units, NO_PLACES, index, value, offset)
        found = int(offset[-1])
        events = Events(index[:found], NO_FLOATS if ones else value[:found], offset)
        return cls(tuple(raster.shape), events, carrier(raster.shape))

    @classmethod
    def fired(cls, shape: tuple[int, ...], bits: NDArray[np.uint16], edge: Tensor, rate: Tensor) -> Spikes:
        """Return spikes that a scan gave as bits (rows, vectors)."""
        rows, vectors = bits.shape
        index, offset = np.empty(rows * vectors * LANES + LANES, np.int32), np.empty(rows + 1, np.int64)
        found = list_fired(bits.ravel(), rows, vectors, index, offset)
        return cls(shape, Events(index[:found], NO_FLOATS, offset), edge, rate)

    @property
    def rows(self) -> int:
        """Steps times samples."""
        return self.shape[0] * self.shape[1]

    @property
    def units(self) -> int:
        """Elements of the shape."""
        return math.prod(self.shape[2:])

    @property
    def activity(self) -> float:
        """The share of units that are not 0."""
        return len(self.events.index) / max(1, self.rows * self.units)

    @cached_property
    def by_unit(self) -> Events:
        """For each unit the rows in which it spikes."""
        index, value, offset = self.events
        turned = Events(np.empty_like(index), np.empty_like(value), np.empty(self.units + 1, np.int64))
        rows_of_units(index, value, offset, self.rows, self.units, *turned)
        return turned

    def filled(self) -> Tensor:
        """Return the spikes as floats, without a gradient."""
        dense = torch.empty(self.shape)
        in_parts(fill_rows, self.rows, *self.events, self.units, dense.view(-1).numpy())
        return dense


def carrier(shape: Shape) -> Tensor:
    """Return a tensor of zeros without storage."""
    return torch.zeros(()).expand(shape)


def row_width(shape: Shape) -> int:
    """Return how many floats a row of the kernels has for a layer of this shape."""
    return padded(math.prod(shape))


_find_kernel = Kernel(find_events.dispatcher.py_func)


def _find(*arguments: Any) -> bool:
    return bool(_find_kernel(*arguments))
