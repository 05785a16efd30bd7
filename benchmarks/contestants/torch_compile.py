"""By hand in PyTorch: the layer-by-layer loop in plain operators, unrolled and fused by torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contestants.base import Job, Run, Stage
from benchmarks.contestants.torch_stack import Layer, Library, Setting, Step, inference, need_compiler, stepwise

# Each step's membrane is kept in memory: without that, the code of a step holds that of all steps before it, which runs
# no faster and takes minutes to compile.
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"realize_opcount_threshold": 5}


def prepare(job: Job) -> Run:
    """Return a run of the compiled network; the first call compiles."""
    need_compiler()
    torch.compiler.reset()  # of networks before this one, of which it would count as a recompilation
    return inference(job, Library(neurons), whole)


def whole(step: Step) -> Step:
    """Return a function under torch.compile, all of it in one graph."""
    return torch.compile(step, fullgraph=True, dynamic=False, options=OPTIONS)  # type: ignore[return-value]


def neurons(stage: Stage, recurrent: nn.Linear | None, _: Setting) -> Layer:
    """Step a stage's neurons from rest through currents (time, batch, *shape)."""

    def step(current: Tensor, membrane: Tensor) -> tuple[Tensor, Tensor]:
        charged = stage.decay * membrane + current
        fired = charged >= stage.threshold
        spikes = fired.to(charged.dtype)
        return spikes, charged - stage.threshold * spikes if stage.subtracts else torch.where(fired, 0.0, charged)

    return stepwise(step, recurrent=recurrent)
