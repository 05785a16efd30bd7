"""What the PyTorch libraries share: each connection is one product over time × batch, and only neurons loop over time.

That is each library at its best; stepping the whole network through time, as their tutorials do, is slower. A first
layer whose input is the same at every step is computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from benchmarks.contestants.base import Job, Run, Stage, stages
from spikeserve.models.engines.base import Counts
from spikeserve.models.engines.torch.connections import SumPool
from spikeserve.models.engines.torch.network import SpikingNetwork
from spikeserve.models.spec.network import Network

# Takes a stage, returns its neurons from rest as currents (time, batch, *shape) -> spikes of the same shape.
Neurons: TypeAlias = Callable[[Stage], Callable[[Tensor], Tensor]]


def layers(network: Network) -> list[tuple[Stage, nn.Module]]:
    """Return each stage with its connections as a module over (samples, *shape), all in float32 as the libraries do."""
    module = SpikingNetwork.of(network).eval().requires_grad_(False).float()
    for pool in module.modules():
        if isinstance(pool, SumPool):
            pool.wide = False
    built = dict(zip((node.name for node in network.spec.nodes), module.layers, strict=True))
    return [(stage, nn.Sequential(*(built[node.name] for node, _ in stage.connections))) for stage in stages(network)]


def prepare(job: Job, neurons: Neurons, network: Network | None = None, *, batch_first: bool = False) -> Run:
    """Return a run of a library's neurons; `batch_first` gives them (batch, time, *shape) and takes it back."""
    stack = [(connect, neurons(stage)) for stage, connect in layers(network or job.network)]
    steps, time_axis = torch.from_numpy(job.inputs.steps), 1 if batch_first else 0
    inputs = steps.transpose(0, 1).contiguous() if batch_first else steps.contiguous()

    @torch.inference_mode()
    def run() -> Counts:
        spikes = inputs
        for connect, step in stack:
            flat = connect(spikes.flatten(0, 1))
            current = flat.view(*spikes.shape[:2], *flat.shape[1:])
            if current.shape[time_axis] == 1:
                shape = list(current.shape)
                shape[time_axis] = job.inputs.time_steps
                current = current.expand(shape)
            spikes = step(current)
        counts: Counts = spikes.sum(time_axis).to(torch.int64).numpy()
        return counts

    return run


def recurrent(stage: Stage) -> nn.Linear | None:
    """Return the connection from a stage's neurons to themselves, over (batch, neurons)."""
    if stage.recurrent is None:
        return None
    size = len(stage.recurrent)
    linear = nn.Linear(size, size, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.from_numpy(stage.recurrent.copy()))
    return linear
