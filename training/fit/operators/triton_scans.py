"""A layer of neurons on a CUDA device, its steps run by Triton; or on the CPU, where Triton's interpreter is asked for.

What `plain.scan` gives, bit for bit in the spikes and up to rounding in the gradients. A recurrent layer launches a
kernel for each step, between whose launches PyTorch multiplies; any other layer one for all steps. Gradients of
parameters are summed in a fixed order, so that a run can be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikeserve.models.neurons import NeuronState
from spikeserve.training.fit.operators.scan_function import ScanSettings
from spikeserve.training.fit.operators.triton_code import BLOCK, LAUNCH_OPTIONS, kernels_of

LARGEST = 2**30  # elements of a row, whose places are 32-bit integers


@cache
def runs_on(device: torch.device) -> bool:
    """Tell whether Triton can run kernels on a device: one of CUDA's that is new enough, or where it is interpreted."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if device.type == "cuda":
        kind = interpreted or torch.cuda.get_device_capability(device) >= (7, 0)
    else:
        kind = interpreted and device.type == "cpu"
    return kind and find_spec("triton") is not None


def scan(
    settings: ScanSettings,
    parameters: Mapping[str, Tensor],
    current: Tensor,
    recurrent: nn.Linear | None,
    begin: NeuronState,
) -> Tensor:
    """Step a layer of neurons through time, from the states at rest, `begin`, as `plain.scan` does."""
    step = kernels_of(settings.rule).step
    weights = (None, None) if recurrent is None else (recurrent.weight, recurrent.bias)
    tensors = [current, *weights, *(parameters[name] for name in step.parameters)]
    leaving: Tensor = TritonScan.apply(settings, *tensors, *(begin[name] for name in step.states))  # type: ignore[no-untyped-call]
    return leaving


class TritonScan(torch.autograd.Function):
    """A layer of neurons through all steps.

    (settings, current (time_steps or 1, batch, *shape), recurrent weight and bias or None, *parameters, *states at rest
    (batch, *shape)) -> what leaves (time_steps, batch, *shape).
    """

    @staticmethod
    def forward(
        ctx: Any, settings: ScanSettings, current: Tensor, weight: Tensor | None, bias: Tensor | None, *tensors: Tensor
    ) -> Tensor:
        """Run the layer, and save what the backward pass needs."""
        step, shape = kernels_of(settings.rule).step, current.shape[1:]
        parameters = [value.detach().expand(shape[1:]).contiguous() for value in tensors[: len(step.parameters)]]
        # The kernel replaces them, and those at rest are one tensor.
        states = [state.clone(memory_format=torch.contiguous_format) for state in tensors[len(step.parameters) :]]
        current = current.contiguous()
        leaving = current.new_empty(settings.steps, *shape)
        kept = len(step.stored) if settings.trains else 0
        stored = list(current.new_empty(kept, settings.steps, *shape))

        def run(at: int, steps: int, feedback: Sequence[Tensor]) -> None:
            stride = current[0].numel() if len(current) > 1 else 0
            rows = [values[at] for values in stored] if settings.trains else [leaving] * len(step.stored)
            arriving = current[at if len(current) > 1 else 0]
            pointers = [arriving, leaving[at], *feedback, *parameters, *states, *rows]
            _launch(kernels_of(settings.rule).forward, steps, leaving[0], stride, pointers, STORED=settings.trains)

        if weight is None:
            run(0, settings.steps, [])
        else:
            spikes = torch.zeros_like(leaving[0])
            for at in range(settings.steps):
                counts = at > 0 or settings.bias_counts_at_once
                run(at, 1, [nn.functional.linear(spikes.flatten(1), weight, bias if counts else None)])
                spikes = leaving[at]
        ctx.settings, ctx.shape, ctx.device = settings, shape, current.device
        ctx.constant = len(current) < settings.steps
        ctx.shapes = [value.shape for value in tensors[: len(step.parameters)]]
        ctx.set_materialize_grads(False)
        recurrence = (weight, leaving) if weight is not None else (None, None)
        ctx.save_for_backward(*recurrence, *parameters, *stored)
        if settings.rule.program.spiking and settings.rule.surrogate is None:
            ctx.mark_non_differentiable(leaving)
        return leaving

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_leaving: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of `forward`'s tensors."""
        settings: ScanSettings = ctx.settings
        step, shape = kernels_of(settings.rule).step, ctx.shape
        weight, leaving, *saved = ctx.saved_tensors
        parameters, stored = saved[: len(step.parameters)], saved[len(step.parameters) :]
        zeros, empty = (partial(make, dtype=torch.float32, device=ctx.device) for make in (torch.zeros, torch.empty))
        arriving = zeros(settings.steps, *shape) if to_leaving is None else to_leaving.contiguous()
        states = [zeros(shape) for _ in step.states]
        trained = [zeros(shape) for _ in step.trained]
        summed = ctx.constant and weight is None
        to_current = empty(1 if summed else settings.steps, *shape)

        def run(last: int, steps: int, to_leaving: Tensor, feedback: Sequence[Tensor]) -> None:
            rows = [values[last] for values in stored]
            pointers = [to_leaving, to_current[0 if summed else last], *feedback, *parameters, *states, *rows, *trained]
            _launch(kernels_of(settings.rule).backward, steps, to_leaving, settings.slope, pointers, SUMMED=summed)

        to_weight, to_bias = None, None
        if weight is None:
            run(settings.steps - 1, settings.steps, arriving[-1], [])
        else:
            errors, back = empty(settings.steps, shape[0], len(weight)), zeros(shape)
            for at in reversed(range(settings.steps)):
                run(at, 1, arriving[at] + back, [errors[at]])
                back = (errors[at] @ weight).view(shape)
            to_weight = errors[1:].view(-1, len(weight)).T @ leaving[:-1].view(-1, len(weight))
            to_bias = (
                errors[0 if settings.bias_counts_at_once else 1 :].sum((0, 1)) if ctx.needs_input_grad[3] else None
            )
            if ctx.constant:
                to_current = to_current.sum(0, keepdim=True)
        to_parameters: list[Tensor | None] = [None] * len(step.parameters)
        for name, totals in zip(step.trained, trained, strict=True):
            at = step.parameters.index(name)
            to_parameters[at] = totals.sum_to_size(ctx.shapes[at])
        return None, to_current, to_weight, to_bias, *to_parameters, *states


def _launch(kernel: Any, steps: int, row: Tensor, number: float, pointers: Sequence[Tensor], **choices: bool) -> None:
    grid = (-(-row.numel() // BLOCK),)
    with torch.cuda.device_of(row):  # type: ignore[no-untyped-call]
        kernel[grid](steps, row.numel(), row[0].numel(), number, *pointers, **choices, **LAUNCH_OPTIONS)
