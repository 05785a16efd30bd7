"""The operators as PyTorch's autograd sees them: what is saved, which kernels run, and which gradients are wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.engines.event.connections import PANEL
from models.engines.event.vectors import LANES
from models.spec.network import FloatArray
from training.fit.operators import products, scans
from training.fit.operators.derivation import Rule, Step
from training.fit.operators.spikes import NO_FLOATS, NO_PLACES, Spikes, carrier, row_width
from training.fit.operators.threads import in_parts, parts_of
from training.fit.operators.vector_code import step_of

NO_OFFSETS = np.zeros(1, np.int64)
COLUMNS = 1024  # neurons of an item whose currents come from memory: their states stay in the L1 cache
SUMS = 2**16  # floats of the currents of an item that computes them: with a panel of weights they fit an L2 cache


def flat(tensor: Tensor) -> FloatArray:
    """Return a contiguous tensor's memory as a flat array."""
    array: FloatArray = tensor.detach().view(-1).numpy()
    return array


def strided(tensor: Tensor) -> tuple[FloatArray, int, int]:
    """Return the memory of a tensor (steps, batch, *shape), and how far apart its steps and samples lie there.

    The tensor may be expanded along the first two axes; along the others it is copied unless it is contiguous.
    """
    tensor = tensor.detach()
    if not tensor[0, 0].is_contiguous():
        tensor = tensor.contiguous()
    steps, samples = tensor.stride(0), tensor.stride(1)
    extent = (tensor.shape[0] - 1) * steps + (tensor.shape[1] - 1) * samples + math.prod(tensor.shape[2:])
    return tensor.as_strided((extent,), (1,)).numpy(), steps, samples


def in_rows(tensor: Tensor, width: int) -> Tensor:
    """Return a contiguous (..., width) of a tensor (..., *shape) with the shape flattened and padded by 0."""
    return torch.nn.functional.pad(tensor.detach(), (0, width - tensor.shape[-1])).contiguous()


@dataclass(frozen=True)
class Layer:
    """What a scan is told besides tensors: the rule, the number of steps, the batch, and the layer's shape."""

    rule: Rule
    steps: int
    batch: int
    shape: tuple[int, ...]
    slope: float
    spiking: bool
    spikes: Spikes | None  # of the layer before, where its connection runs with the scan
    wanted: bool  # whether a backward pass may follow

    @property
    def size(self) -> int:
        """The number of neurons."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """The number of neurons with padding."""
        return row_width(self.shape)

    @property
    def step(self) -> Step:
        """The step's expressions."""
        return step_of(self.rule)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of what leaves."""
        return (self.steps, self.batch, *self.shape)


class Scan(torch.autograd.Function):
    """A layer of neurons through all steps, with the Linear before it where the input is `layer.spikes`.

    (layer, bits, current or None, carrier or None, weight or None, bias or None, *parameters, *states): `bits` (rows,
    width / LANES) receives who fired. Returns what leaves, the mean of the spikes, and the states after the last step;
    what leaves is a carrier for spikes that `bits` holds.
    """

    @staticmethod
    def forward(ctx: Any, layer: Layer, bits: Any, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """Run the layer, and save what the backward pass needs."""
        current, _, weight, bias, *rest = tensors
        step, width, rows = layer.step, layer.width, layer.steps * layer.batch
        named = dict(zip(step.parameters, rest, strict=False))
        parameters = _parameter_rows(named, layer)
        states = torch.zeros(max(1, len(step.states)), layer.batch, width)
        for k, state in enumerate(rest[len(step.parameters) :]):
            if state is not None:
                states[k, :, : layer.size] = state.detach().reshape(layer.batch, layer.size)
        kept = len(step.stored) if layer.wanted else 0
        stored = torch.empty(max(1, kept) * (rows if kept else 1) * width)
        stored_row, stored_stride = (width, rows * width) if kept else (0, 0)
        dense = not layer.spiking or bits is None
        leaving = torch.empty(layer.outputs) if dense else carrier(layer.outputs)
        fired = np.empty(rows * width // LANES, np.uint16) if bits is None else bits
        if layer.spikes is not None:
            assert weight is not None  # noqa: S101
            units = layer.spikes.units
            panels = np.empty(units * width, np.float32)
            in_parts(products.pack, -(-width // PANEL), flat(weight), layer.size, units, width, panels)
            base = np.zeros(width, np.float32)
            if bias is not None:
                base[: layer.size] = bias.detach().numpy()
            samples = max(1, min(layer.batch, SUMS // (layer.steps * PANEL)))
            items = -(-width // PANEL) * -(-layer.batch // samples)
            source = (PANEL, samples, *layer.spikes.events, panels, units, base, NO_FLOATS, 0, 0)
        else:
            assert current is not None  # noqa: S101
            columns = min(COLUMNS, width)
            items = -(-width // columns) * layer.batch
            memory, step_stride, sample_stride = strided(current)
            if current.shape[0] == 1:
                step_stride = 0
            source = (
                columns, 1, NO_PLACES, NO_FLOATS, NO_OFFSETS, NO_FLOATS, 0, NO_FLOATS, memory, step_stride,
                sample_stride,
            )  # fmt: skip
        in_parts(
            scans.scan_forward, items, layer.rule, layer.steps, layer.batch, layer.size, width, *source, flat(states),
            flat(parameters), flat(stored), stored_row, stored_stride, flat(leaving) if dense else NO_FLOATS, fired,
        )  # fmt: skip
        ctx.layer = layer
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight, parameters, stored)
        ctx.current_steps = None if current is None else current.shape[0]
        mean = torch.empty(())
        if layer.spiking:
            total = leaving.sum().item() if bits is None else products.count_fired(fired)
            mean.fill_(total / math.prod(layer.outputs))
        after = [states[k, :, : layer.size].reshape(layer.batch, *layer.shape) for k in range(len(step.states))]
        return leaving, mean, *after

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of `forward`'s tensors."""
        layer: Layer = ctx.layer
        weight, parameters, stored = ctx.saved_tensors
        step, width, rows = layer.step, layer.width, layer.steps * layer.batch
        to_leaving, to_mean, *to_after = gradients
        wants_current, wants_carrier, wants_weight, wants_bias, *wants_rest = ctx.needs_input_grad[2:]
        memory, step_stride, sample_stride = strided(carrier(layer.outputs) if to_leaving is None else to_leaving)
        common = np.zeros(width, np.float32)
        if to_mean is not None:
            common[: layer.size] = float(to_mean) / math.prod(layer.outputs)
        states = torch.zeros(max(1, len(step.states)), layer.batch, width)
        for k, gradient in enumerate(to_after):
            if gradient is not None:
                states[k, :, : layer.size] = gradient.reshape(layer.batch, layer.size)
        constant = ctx.current_steps == 1 and layer.steps > 1
        errors = torch.empty((1 if constant else layer.steps) * layer.batch * width)
        columns = min(COLUMNS, width)
        items = -(-width // columns) * layer.batch
        trained = torch.zeros(parts_of(items), max(1, len(step.trained)), width)
        in_parts(
            scans.scan_backward, items, layer.rule, layer.steps, layer.batch, layer.size, width, columns, memory,
            step_stride, sample_stride, common, flat(states), flat(parameters), flat(stored), rows * width, layer.slope,
            flat(errors), constant, flat(trained), trained.stride(0),
        )  # fmt: skip
        to_current = to_carrier = to_weight = to_bias = None
        if layer.spikes is not None:
            matrix = errors.view(rows, width)[:, : layer.size]
            if wants_carrier:
                to_carrier = (matrix @ weight).view(layer.spikes.shape)
            if wants_weight or wants_bias:
                to_weight, to_bias = weight_gradients(errors, layer, layer.spikes)
        elif wants_current:
            to_current = errors.view(-1, layer.batch, width)[..., : layer.size].reshape(-1, layer.batch, *layer.shape)
        to_parameters: list[Tensor | None] = [None] * len(step.parameters)
        if step.trained:
            sums = trained.sum(0)[:, : layer.size]
            for name, total in zip(step.trained, sums, strict=True):
                at = step.parameters.index(name)
                to_parameters[at] = total.view(layer.shape)
        to_states = [
            states[k, :, : layer.size].reshape(layer.batch, *layer.shape) if wants else None
            for k, wants in enumerate(wants_rest[len(step.parameters) :])
        ]
        return None, None, to_current, to_carrier, to_weight, to_bias, *to_parameters, *to_states


def weight_gradients(errors: Tensor, layer: Layer, spikes: Spikes) -> tuple[Tensor, Tensor]:
    """Return the gradients of a Linear's weight (outputs, units) and bias (outputs,) from its rows of errors."""
    units, width = spikes.units, layer.width
    gradient, sums = torch.empty(layer.size, units), torch.empty(width)
    panels = -(-width // PANEL)
    ranges = max(1, min(units // LANES, -(-2 * torch.get_num_threads() // panels)))
    in_parts(
        products.weight_gradient, panels * ranges, flat(errors), spikes.rows, width, layer.size, units, *spikes.by_unit,
        flat(gradient), flat(sums), ranges,
    )  # fmt: skip
    return gradient, sums[: layer.size]


def _parameter_rows(named: Mapping[str, Tensor | None], layer: Layer) -> Tensor:
    """Return each parameter as a padded row (parameters, width)."""
    rows = torch.zeros(max(1, len(named)), layer.width)
    for row, value in zip(rows, named.values(), strict=False):
        assert value is not None  # noqa: S101
        row[: layer.size] = value.detach().reshape(-1) if value.ndim else value.detach()
    return rows
