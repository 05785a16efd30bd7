"""By hand in PyTorch: the layer-by-layer loop in plain operators, unrolled and fused by torch.compile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.contestants import torch_stack
from benchmarks.contestants.base import Job, Run, Skipped, Stage
from spikeserve.models.engines.base import Counts

# Each step's membrane is kept in memory: without that, the code of a step holds that of all steps before it, which runs
# no faster and takes minutes to compile.
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"realize_opcount_threshold": 5}


def prepare(job: Job) -> Run:
    """Return a run of the compiled network; the first call compiles."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise Skipped("torch.compile needs a C++ compiler, and none is on PATH")
    stack = [(stage, connect, torch_stack.recurrent(stage)) for stage, connect in torch_stack.layers(job.network)]
    torch.compiler.reset()  # of networks before this one, of which it would count as a recompilation
    inputs, time_steps = torch.from_numpy(job.inputs.steps).contiguous(), job.inputs.time_steps

    def network(spikes: Tensor) -> Tensor:
        for stage, connect, recurrent in stack:
            flat = connect(spikes.flatten(0, 1))
            currents = flat.view(*spikes.shape[:2], *flat.shape[1:])
            spikes = neurons(stage, currents, recurrent, time_steps)
        return spikes.sum(0)

    compiled = torch.compile(network, fullgraph=True, dynamic=False, options=OPTIONS)

    @torch.inference_mode()
    def run() -> Counts:
        counts: Counts = compiled(inputs).to(torch.int64).numpy()
        return counts

    return run


def neurons(stage: Stage, currents: Tensor, recurrent: torch.nn.Linear | None, time_steps: int) -> Tensor:
    """Step a stage's neurons from rest through currents (1 or time, batch, *shape)."""
    membrane = torch.zeros_like(currents[0])
    spikes, raster = membrane, []
    for t in range(time_steps):
        current = currents[t if len(currents) > 1 else 0]
        if recurrent is not None:
            current = current + recurrent(spikes)
        charged = stage.decay * membrane + current
        fired = charged >= stage.threshold
        spikes = fired.to(charged.dtype)
        membrane = charged - stage.threshold * spikes if stage.subtracts else torch.where(fired, 0.0, charged)
        raster.append(spikes)
    return torch.stack(raster)
