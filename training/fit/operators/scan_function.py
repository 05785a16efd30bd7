"""A layer of neurons as PyTorch's autograd sees it: what is saved, which kernels run, which gradients are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikeserve.models.engines.event.connections import PANEL
from spikeserve.models.engines.event.layouts import padded
from spikeserve.models.engines.event.vectors import LANES
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.fit.operators import linear, scans
from spikeserve.training.fit.operators.derivation import Rule, Step
from spikeserve.training.fit.operators.memory import flat, floats, padded_row, reserve_memory, strided
from spikeserve.training.fit.operators.spikes import NO_FLOATS, NO_PLACES, NO_PRODUCT, Lists, Spikes, carrier
from spikeserve.training.fit.operators.threads import in_parts, parts_of
from spikeserve.training.fit.operators.vector_code import backward_of, forward_of, has_feedback_of_its_own, step_of

NO_OFFSETS = np.zeros(1, np.int64)
COLUMNS = 1024  # neurons of an item whose currents come from memory: their states stay in the L1 cache
SUMS = 2**16  # floats of the currents of an item that computes them: with a panel of weights they fit an L2 cache
SAMPLES = 16  # of an item of a recurrent layer going back, at most
SIDE_BY_SIDE = 8  # forward, where the processor works on one sample while another's spikes are on their way
RECURRENT_WEIGHTS = 2**18  # floats of both weights of a recurrent layer that an L2 cache holds: read at each step


@dataclass(frozen=True, eq=False)
class ScanSettings:
    """What a scan needs besides tensors, on any device; `trains`: whether a backward pass may follow."""

    rule: Rule
    steps: int
    slope: float
    trains: bool
    bias_counts_at_once: bool  # whether a recurrent bias counts at the first step


@dataclass(frozen=True, eq=False)
class Layer(ScanSettings):
    """The settings of a scan in the kernels of a CPU.

    `source` are the spikes of the layer before, where its connection runs with the scan. `lists` receives who fires,
    and is None where what leaves are floats: membranes, or several spikes a step.
    """

    batch: int
    shape: tuple[int, ...]
    source: Spikes | None
    lists: Lists | None

    @cached_property
    def size(self) -> int:
        """The number of neurons."""
        return math.prod(self.shape)

    @cached_property
    def width(self) -> int:
        """The number of neurons with padding."""
        return padded(self.size)

    @cached_property
    def rows(self) -> int:
        """Steps times samples."""
        return self.steps * self.batch

    @cached_property
    def step(self) -> Step:
        """The step's expressions."""
        return step_of(self.rule)

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """The shape of what leaves."""
        return (self.steps, self.batch, *self.shape)


class Tensors(NamedTuple):
    """The tensors of a scan besides its parameters and states.

    `current` is that of a layer without a `source`; with one there are its `carrier`, and the Linear's weight and bias.
    """

    current: Tensor | None = None
    carrier: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    recurrent_weight: Tensor | None = None
    recurrent_bias: Tensor | None = None


FIXED = len(Tensors._fields)


class Scan(torch.autograd.Function):
    """A layer of neurons through all steps, with the Linear before it where the layer has a source.

    (layer, *Tensors, *parameters, *states at rest) -> what leaves, and the mean of the spikes. What leaves is only a
    carrier where `layer.lists` holds the spikes. A state of zeros is None.
    """

    @staticmethod
    def forward(ctx: Any, layer: Layer, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the layer, and save what the backward pass needs."""
        reserve_memory()
        if layer.source is not None:
            layer.source.lists.uses += 1
        inputs, step, width = Tensors(*tensors[:FIXED]), layer.step, layer.width
        named = tensors[FIXED : FIXED + len(step.parameters)]
        parameters = _rows(named, layer)
        states = torch.zeros(max(1, len(step.states)), layer.batch, width)
        for row, state in zip(states, tensors[FIXED + len(named) :], strict=False):
            if state is not None:
                row[:, : layer.size] = state.detach().reshape(layer.batch, layer.size)
        kept = len(step.stored) if layer.trains else 0
        stored = torch.empty(kept * layer.rows * width if kept else width)
        dense = layer.lists is None
        leaving = torch.empty(*layer.outputs) if dense else carrier(layer.outputs)
        fired = layer.lists.bits if layer.lists is not None else np.empty(layer.rows * width // LANES, np.uint16)
        ends = (
            flat(states), parameters, flat(stored), width if kept else 0, layer.rows * width if kept else 0,
            flat(leaving) if dense else NO_FLOATS, fired,
        )  # fmt: skip
        _forward(layer, inputs, ends)
        ctx.scalars = [not value.ndim for value in named]
        ctx.layer, ctx.current_steps = layer, None if inputs.current is None else len(inputs.current)
        ctx.parameters = parameters
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs.weight, inputs.recurrent_weight, leaving if dense else None, stored)
        spiking, total = layer.rule.program.spiking, 0.0
        if spiking:
            total = float(leaving.sum()) if layer.lists is None else layer.lists.count
        mean = torch.full((), total / (layer.rows * layer.size))
        if spiking and layer.rule.surrogate is None:
            ctx.mark_non_differentiable(leaving, mean)
        return leaving, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_leaving: Tensor | None, to_mean: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of `forward`'s tensors."""
        layer: Layer = ctx.layer
        step, width, steps = layer.step, layer.width, layer.steps
        weight, recurrent_weight, leaving, stored = ctx.saved_tensors
        common = np.full(width, 0.0 if to_mean is None else float(to_mean) / (layer.rows * layer.size), np.float32)
        states = torch.zeros(max(1, len(step.states)), layer.batch, width)
        product = NO_PRODUCT if layer.lists is None or to_leaving is None else layer.lists.arriving()
        rows = (np.zeros(layer.size, np.float32), 0, 0)
        if to_leaving is not None and product is NO_PRODUCT:
            rows = strided(to_leaving)
        needs = Tensors(*ctx.needs_input_grad[1 : 1 + FIXED])
        gradients: dict[str, Tensor | None] = {}
        recurrent = recurrent_weight is not None
        constant = ctx.current_steps == 1 and steps > 1 and not recurrent
        errors = linear.error_rows((1 if constant else steps) * layer.batch, width)
        feedback = linear.error_rows(layer.rows, width) if has_feedback_of_its_own(step) else errors
        columns, samples = min(COLUMNS, width), 1
        if recurrent:
            columns, samples = width, max(1, min(SAMPLES, -(-layer.batch // torch.get_num_threads())))
        items = -(-width // columns) * -(-layer.batch // samples)
        trained = np.zeros((parts_of(items), max(1, len(step.trained)), width), np.float32)
        to_current = linear.with_room(errors)
        in_parts(
            scans.scan_backward, items, backward_of(layer.rule).address, steps, layer.batch, layer.size, width, columns,
            samples, *rows, *product, common, flat(states),
            linear.packed_rows(recurrent_weight) if recurrent else NO_FLOATS, ctx.parameters, flat(stored),
            layer.rows * width, layer.slope, to_current, constant,
            to_current if feedback is errors else linear.with_room(feedback), trained.reshape(-1), trained[0].size,
        )  # fmt: skip
        if recurrent:
            lists = layer.lists if layer.lists is not None else Lists.of(leaving)
            gradients["recurrent_weight"], to_bias = _recurrent_gradients(layer, feedback, lists)
            gradients["recurrent_bias"] = to_bias if needs.recurrent_bias else None
            if ctx.current_steps == 1 and steps > 1:
                errors = errors.view(steps, layer.batch, width).sum(0)
        if layer.source is not None:
            if needs.carrier:
                gradients["carrier"] = linear.to_spikes(layer.source, errors, weight)
            if needs.weight or needs.bias:
                gradients["weight"], to_bias = linear.weight_gradient(errors, layer.size, layer.source.lists.by_unit)
                gradients["bias"] = to_bias if needs.bias else None
        elif needs.current:
            to_layer = errors.view(-1, layer.batch, width)[..., : layer.size]
            gradients["current"] = to_layer.reshape(-1, layer.batch, *layer.shape)
        to_parameters: list[Tensor | None] = [None] * len(step.parameters)
        totals = torch.from_numpy(trained[..., : layer.size]).sum(0) if step.trained else ()
        for name, total in zip(step.trained, totals, strict=True):
            at, one = step.parameters.index(name), ctx.scalars[step.parameters.index(name)]
            to_parameters[at] = total.sum() if one else total.view(layer.shape)
        needed = ctx.needs_input_grad[1 + FIXED + len(step.parameters) :]
        rows_of = states[..., : layer.size].reshape(len(states), layer.batch, *layer.shape)
        to_states = [row if each else None for row, each in zip(rows_of, needed, strict=False)]
        return None, *Tensors(**gradients), *to_parameters, *to_states


def _forward(layer: Layer, inputs: Tensors, ends: tuple[Any, ...]) -> None:
    width, source, current, weight = layer.width, layer.source, inputs.current, inputs.weight
    panels: tuple[Any, ...] = (NO_PLACES, NO_FLOATS, NO_OFFSETS, NO_FLOATS, 0, NO_FLOATS)
    rows: tuple[Any, ...] = (NO_FLOATS, 0, 0)
    feedback = (NO_FLOATS, NO_FLOATS)
    columns, samples = min(COLUMNS, width), 1
    share = -(-layer.batch // torch.get_num_threads())
    if inputs.recurrent_weight is not None:
        columns, samples = width, max(1, min(SIDE_BY_SIDE, share))
        later = padded_row(inputs.recurrent_bias, width)
        first = later if layer.bias_counts_at_once else np.zeros_like(later)
        feedback = (linear.packed(inputs.recurrent_weight, width), np.concatenate([first, later]))
        if source is not None and weight is not None and width * (source.lists.units + width) > RECURRENT_WEIGHTS:
            current = linear.run(source, weight, inputs.bias).view(layer.steps, layer.batch, width)
    if current is not None:
        rows = strided(current)
    elif source is not None and weight is not None:
        if inputs.recurrent_weight is None:
            columns, samples = PANEL, max(1, min(layer.batch, SUMS // (layer.steps * PANEL)))
            samples = min(samples, share) if width <= PANEL else samples
        weights = flat(weight.contiguous()) if inputs.recurrent_weight is None else linear.packed(weight, width)
        panels = (*source.lists.by_row, weights, source.lists.units, padded_row(inputs.bias, width))
    in_parts(
        scans.scan_forward, -(-width // columns) * -(-layer.batch // samples), forward_of(layer.rule).address,
        layer.steps, layer.batch, layer.size, width, columns, samples, *panels, *rows, *feedback, *ends,
    )  # fmt: skip


def _recurrent_gradients(layer: Layer, errors: Tensor, lists: Lists) -> tuple[Tensor, Tensor]:
    """Return the gradients of the recurrent weight and bias: at each step the spikes of the step before count."""
    later = (layer.steps - 1) * layer.batch
    to_weight, to_bias = torch.zeros(layer.size, layer.size), torch.zeros(layer.size)
    if later:
        # Behind the errors there are no rows that the last step's spikes could reach.
        to_weight, to_bias = linear.weight_gradient(errors[layer.batch :], layer.size, lists.by_unit)
    if layer.bias_counts_at_once:
        to_bias = to_bias + errors[: layer.batch, : layer.size].sum(0)
    return to_weight, to_bias


def _rows(parameters: tuple[Tensor, ...], layer: Layer) -> FloatArray:
    """Return parameters as rows (parameters, width), flat and padded by a value of theirs: nothing is divided by 0."""
    rows = floats(max(1, len(parameters)), layer.width)
    for row, value in zip(rows, parameters, strict=False):
        values = value.detach().numpy()
        row[:] = values.flat[-1]
        if values.ndim:
            row[: layer.size] = values.reshape(-1)
    return rows.reshape(-1)
