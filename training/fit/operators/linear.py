"""A Linear whose input is spikes: its products follow them, forward and in the gradients of its weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikeserve.models.engines.event.connections import PANEL
from spikeserve.models.engines.event.layouts import padded
from spikeserve.models.engines.event.vectors import FLOAT_ROWS, LANES
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.fit.operators import products
from spikeserve.training.fit.operators.memory import flat, floats, padded_row, padded_rows
from spikeserve.training.fit.operators.spikes import Events, Product, Spikes, carrier
from spikeserve.training.fit.operators.threads import Kernel, in_parts, ranges_for

WEIGHTS = 2**17  # floats of a weight that a scan reads again for every few steps: half of an L2 cache


def packed(weight: Tensor, panel: int = PANEL) -> FloatArray:
    """Return a weight (outputs, units) as panels of outputs, with a row for each unit; see `products.pack`."""
    outputs, units = weight.shape
    width = padded(outputs)
    return _in_panels(products.pack, weight, units * width, width, width, panel)


def packed_rows(weight: Tensor) -> FloatArray:
    """Return a weight (outputs, units) as panels of units, with a row for each output and those of its padding."""
    outputs, units = weight.shape
    rows, width = padded(outputs), padded(units)
    return _in_panels(products.pack_rows, weight, rows * width, width, rows, width)


def _in_panels(kernel: Kernel, weight: Tensor, size: int, width: int, *sizes: int) -> FloatArray:
    """Pack a weight by a kernel, which also takes `sizes`, into `size` floats of panels, `width` wide in all."""
    panels = floats(size)
    in_parts(kernel, -(-width // PANEL), flat(weight.contiguous()), *weight.shape, *sizes, panels, work=size)
    return panels


def run(spikes: Spikes, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the currents of spikes, (rows, padded outputs)."""
    width, panels = padded(len(weight)), packed(weight)
    rows = spikes.lists.rows
    currents = torch.empty(rows, width)
    ranges = ranges_for(-(-width // PANEL), rows)
    in_parts(
        products.run_linear, -(-width // PANEL) * ranges, *spikes.lists.by_row, rows, panels, spikes.lists.units, width,
        padded_row(bias, width), flat(currents), ranges,
    )  # fmt: skip
    return currents


def error_rows(rows: int, width: int) -> Tensor:
    """Return room for errors (rows, width), and behind them for the rows that the last products read in vain."""
    return torch.empty((rows + FLOAT_ROWS) * width)[: rows * width].view(rows, width)


def with_room(errors: Tensor) -> FloatArray:
    """Return the memory of `error_rows` with the room behind them."""
    rows, width = errors.shape
    return flat(errors.as_strided(((rows + FLOAT_ROWS) * width,), (1,)))


def weight_gradient(errors: Tensor, outputs: int, by_unit: Events) -> tuple[Tensor, Tensor]:
    """Return the gradient of a Linear's weight (outputs, units), and of its bias, from its errors (rows, width)."""
    rows, width = errors.shape
    units = len(by_unit.offset) - 1
    gradient, sums = torch.empty(outputs, units), torch.empty(width)
    panels = -(-width // PANEL)
    ranges = min(ranges_for(panels, rows), max(1, units // LANES))
    in_parts(
        products.weight_gradient, panels * ranges, flat(errors), rows, width, outputs, units, *by_unit, flat(gradient),
        flat(sums), ranges,
    )  # fmt: skip
    return gradient, sums[:outputs]


def to_spikes(spikes: Spikes, errors: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of spikes from the `error_rows` of the Linear that takes them, or leave it as a product."""
    width = errors.shape[1]
    alone = spikes.lists.uses == 1 and spikes.rate is not None
    if alone and spikes.shape[0] >= FLOAT_ROWS and width * padded(spikes.lists.units) <= WEIGHTS:
        spikes.lists.product = Product(with_room(errors), width, packed_rows(weight))
        return carrier(spikes.shape)
    return (errors[:, : len(weight)] @ weight).view(spikes.shape)


class Connect(torch.autograd.Function):
    """A Linear of spikes: (spikes, carrier, weight, bias) -> currents (time_steps, batch, outputs)."""

    @staticmethod
    def forward(ctx: Any, spikes: Spikes, _: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Run the Linear."""
        ctx.spikes = spikes
        spikes.lists.uses += 1
        ctx.save_for_backward(weight)
        return run(spikes, weight, bias).view(*spikes.shape[:2], -1)[..., : len(weight)]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of carrier, weight and bias."""
        (weight,) = ctx.saved_tensors
        spikes: Spikes = ctx.spikes
        outputs = len(weight)
        errors = error_rows(spikes.lists.rows, padded(outputs))
        errors.copy_(padded_rows(gradient.flatten(0, 1), padded(outputs)))
        to_carrier = to_spikes(spikes, errors, weight) if ctx.needs_input_grad[1] else None
        to_weight, to_bias = weight_gradient(errors, outputs, spikes.lists.by_unit)
        return None, to_carrier, to_weight, to_bias if ctx.needs_input_grad[3] else None
