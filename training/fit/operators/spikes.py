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

from spikeserve.models.engines.event.layouts import padded
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.parameters import Shape
from spikeserve.training.fit.operators import listing
from spikeserve.training.fit.operators.memory import flat
from spikeserve.training.fit.operators.threads import in_parts, parts_of

NO_FLOATS: FloatArray = np.empty(0, np.float32)
NO_PLACES: NDArray[np.int32] = np.empty(0, np.int32)


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
    """What is not 0 in rows of `units`, as bits (rows, vectors) and as lists of events, made when first asked for.

    `raster` has the values where something is neither 0 nor 1. `uses` counts the operators that take the spikes. Where
    there is one only, it may leave the spikes' gradient here as a `product`, and give autograd a tensor of zeros in its
    place: the scan that fired them computes the product where it needs it, and no gradient of all neurons at all steps
    goes through memory.
    """

    rows: int
    units: int
    bits: NDArray[np.uint16]
    raster: Tensor | None = None
    uses: int = 0
    product: Product | None = None

    @classmethod
    def empty(cls, rows: int, units: int) -> Lists:
        """Return lists whose bits are still to be written."""
        return cls(rows, units, np.empty(rows * padded(units) // LANES, np.uint16))

    @classmethod
    def of(cls, raster: Tensor) -> Lists:
        """Return the lists of a raster (steps, batch, *shape), float32 on the CPU."""
        raster = raster.detach().contiguous()
        lists = cls.empty(raster.shape[0] * raster.shape[1], math.prod(raster.shape[2:]))
        work = 4 * lists.rows * lists.vectors
        others = np.zeros(parts_of(lists.rows, work), np.bool_)
        in_parts(
            listing.find_bits, lists.rows, flat(raster), lists.units, lists.vectors, lists.bits, others, work=work
        )  # fmt: skip
        lists.raster = raster if others.any() else None
        return lists

    @property
    def vectors(self) -> int:
        """How many vectors of bits a row has."""
        return padded(self.units) // LANES

    @cached_property
    def offset(self) -> NDArray[np.int64]:
        """Where in the lists each row begins, and the last one ends (rows + 1)."""
        offset = np.zeros(self.rows + 1, np.int64)
        in_parts(listing.count_rows, self.rows, self.bits, self.vectors, offset, work=self.rows * self.vectors)
        return np.cumsum(offset, out=offset)

    @property
    def count(self) -> int:
        """How many units of all rows are not 0."""
        return int(self.offset[-1])

    @cached_property
    def by_row(self) -> Events:
        """For each row the units that are not 0."""
        index, offset = np.empty(self.count, np.int32), self.offset
        work = 3 * self.rows * self.vectors
        in_parts(listing.list_rows, self.rows, self.bits, self.vectors, index, offset, work=work)
        value = NO_FLOATS
        if self.raster is not None:
            value = np.empty(self.count, np.float32)
            in_parts(listing.read_values, self.rows, flat(self.raster), self.units, index, value, offset)
        return Events(index, value, offset)

    def arriving(self) -> Product:
        """Return the product that was left in a gradient's place, once."""
        product, self.product = self.product or NO_PRODUCT, None
        return product

    @cached_property
    def by_unit(self) -> Events:
        """For each unit the rows in which it is not 0."""
        index, value, offset = self.by_row
        work = self.count
        place = np.empty(parts_of(self.rows, work) * self.units, np.int64)
        in_parts(listing.count_units, self.rows, index, offset, self.units, place, work=work)
        turned = Events(
            np.empty(self.count, np.int32), np.empty(value.size, np.float32), np.empty(self.units + 1, np.int64)
        )
        in_parts(listing.place_units, 1, place, self.units, turned.offset)
        in_parts(
            listing.list_units, self.rows, index, value, offset, self.units, place, turned.index, turned.value,
            work=work,
        )  # fmt: skip
        return turned


@dataclass(eq=False)
class Spikes:
    """The spikes of a layer, or an input that is mostly 0, as (time_steps, batch, *shape).

    Row step * batch + sample of `lists` has the units that spike. `carrier` has that shape, and of a layer's spikes no
    storage: it is the edge of autograd's graph at which the spikes' gradient, a float tensor of the same shape,
    arrives. `rate` is their mean with a gradient that is one number, where they are of a layer of neurons, and `raster`
    the tensor that an input came as.
    """

    shape: tuple[int, ...]
    lists: Lists
    carrier: Tensor
    rate: Tensor | None = None
    raster: Tensor | None = None

    @classmethod
    def of(cls, raster: Tensor) -> Spikes:
        """List what is not 0 in a raster (time_steps, batch, *shape), float32 on the CPU."""
        edge = raster if raster.requires_grad else carrier(raster.shape)
        return cls(tuple(raster.shape), Lists.of(raster), edge, raster=raster)

    @property
    def activity(self) -> float:
        """The share of units that are not 0."""
        return self.lists.count / max(1, self.lists.rows * self.lists.units)

    @property
    def device(self) -> torch.device:
        """The device that they are on, which is the CPU."""
        return self.carrier.device

    def filled(self) -> Tensor:
        """Return the spikes as floats, without a gradient."""
        dense = torch.empty(*self.shape)
        in_parts(
            listing.fill_rows, self.lists.rows, *self.lists.by_row, self.lists.units, flat(dense),
            work=dense.numel() // 8,
        )  # fmt: skip
        return dense


def carrier(shape: Shape) -> Tensor:
    """Return a tensor of zeros without storage."""
    return torch.zeros(()).expand(shape)
