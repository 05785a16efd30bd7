"""Spikes on their way between layers: lists of events, and an edge of autograd's graph that carries their gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

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
from training.fit.operators.memory import empty
from training.fit.operators.products import fill_rows, list_fired, rows_of_units
from training.fit.operators.threads import in_parts

NO_FLOATS: FloatArray = np.empty(0, np.float32)
NO_PLACES: NDArray[np.int32] = np.empty(0, np.int32)

find = Kernel(find_events.dispatcher.py_func)  # the event engine's has one signature, which its `warm` settles


class Events(NamedTuple):
    """What is not 0, row after row: `index` (events,), `value` (events,) or empty for ones, `offset` (rows + 1)."""

    index: NDArray[np.int32]  # type: ignore[assignment]  # a tuple's own method of that name is not used
    value: FloatArray
    offset: NDArray[np.int64]


class Product(NamedTuple):
    """A gradient that is not computed yet: errors (rows, width) times a weight that `pack_rows` packed."""

    errors: FloatArray
    width: int
    weight: FloatArray


NO_PRODUCT = Product(NO_FLOATS, 0, NO_FLOATS)


@dataclass(eq=False)
class Lists:
    """The events of rows of `units`, listed when first asked for, from a raster or from bits (rows, vectors).

    `uses` counts the operators that take the spikes. Where there is one only, it may leave the spikes' gradient here as
    a `product`, and give autograd a tensor of zeros in its place: the scan that fired them computes the product where
    it needs it, and no gradient of all neurons at all steps goes through memory.
    """

    rows: int
    units: int
    bits: NDArray[np.uint16] | None = None
    raster: Tensor | None = None
    uses: int = 0
    product: Product | None = None

    @cached_property
    def by_row(self) -> Events:
        """For each row the units that are not 0."""
        room = self.rows * padded(self.units) + LANES
        index, offset = np.empty(room, np.int32), np.empty(self.rows + 1, np.int64)
        if self.bits is not None:
            found = list_fired(self.bits, self.rows, padded(self.units) // LANES, index, offset)
            return Events(index[:found], NO_FLOATS, offset)
        assert self.raster is not None  # noqa: S101
        flat, value = self.raster.detach().contiguous().view(-1).numpy(), np.empty(room, np.float32)
        ones = find(flat, 1, self.rows, 0, self.units, self.units, NO_PLACES, index, value, offset)
        found = int(offset[-1])
        return Events(index[:found], NO_FLOATS if ones else value[:found], offset)

    @property
    def valued(self) -> bool:
        """Whether anything is neither 0 nor 1."""
        return self.by_row.value.size > 0

    def arriving(self) -> Product:
        """Return the product that was left in a gradient's place, once."""
        product, self.product = self.product or NO_PRODUCT, None
        return product

    @cached_property
    def by_unit(self) -> Events:
        """For each unit the rows in which it is not 0."""
        index, value, offset = self.by_row
        turned = Events(np.empty_like(index), np.empty_like(value), np.empty(self.units + 1, np.int64))
        rows_of_units(index, value, offset, self.rows, self.units, *turned)
        return turned


@dataclass(eq=False)
class Spikes:
    """The spikes of a layer, or an input that is mostly 0, as (time_steps, batch, *shape).

    Row step * batch + sample of `lists` has the units that spike. `carrier` has that shape, but no storage: it is the
    edge of autograd's graph at which the spikes' gradient, a float tensor of the same shape, arrives. `rate` is their
    mean with a gradient that is one number, where they are of a layer of neurons.
    """

    shape: tuple[int, ...]
    lists: Lists
    carrier: Tensor
    rate: Tensor | None = None

    @classmethod
    def of(cls, raster: Tensor) -> Spikes:
        """List what is not 0 in a raster (time_steps, batch, *shape), float32 on the CPU, that needs no gradient."""
        lists = Lists(raster.shape[0] * raster.shape[1], math.prod(raster.shape[2:]), raster=raster)
        return cls(tuple(raster.shape), lists, carrier(raster.shape))

    @property
    def activity(self) -> float:
        """The share of units that are not 0."""
        return len(self.lists.by_row.index) / max(1, self.lists.rows * self.lists.units)

    def filled(self) -> Tensor:
        """Return the spikes as floats, without a gradient."""
        dense = empty(*self.shape)
        in_parts(fill_rows, self.lists.rows, *self.lists.by_row, self.lists.units, dense.view(-1).numpy())
        return dense


def carrier(shape: Shape) -> Tensor:
    """Return a tensor of zeros without storage."""
    return torch.zeros(()).expand(shape)


def row_width(shape: Shape) -> int:
    """Return how many floats a row of the kernels has for a layer of this shape."""
    return padded(math.prod(shape))
