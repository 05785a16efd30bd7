"""Norse: its sequence module over LIFBox steps, with a reset of its kind that is detached.

LIFBox computes v + k * (i - v), so that the weights are divided by k, a power of two here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
from norse.torch.module.snn import SNN, SNNCell
from torch import Tensor, nn

from benchmarks.contestants.base import Stage, scaled, stages
from benchmarks.training import torch_stack
from benchmarks.training.base import Job
from benchmarks.training.torch_stack import TorchTraining, Wrap


def prepare(job: Job) -> TorchTraining:
    """Return the training of Norse."""
    factors = [1 / (1 - stage.decay) for stage in stages(job.network)]
    network = scaled(job.network, factors)
    times = {
        f"{name}.{parameter}": factor
        for stage, factor in zip(stages(job.network), factors, strict=True)
        for name, parameter in (
            *((node.name, "weight") for node, _ in stage.connections),
            (stage.neuron.name, "recurrent.weight"),
        )
    }
    return torch_stack.prepare(job, neurons, network, times=times)


def subtract(spikes: Tensor, membrane: Tensor, _: Tensor, threshold: Tensor) -> Tensor:
    """Reset by subtraction, through which no gradient passes; Norse's own passes it, and computes more."""
    return membrane - spikes.detach() * threshold


def neurons(stage: Stage, recurrent: nn.Linear | None, wrap: Wrap) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    rule = LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 - stage.decay),
        v_th=torch.tensor(stage.threshold),
        method="super",  # its slope is 1, whatever alpha says
        reset_method=subtract,
    )
    step = wrap(lif_box_feed_forward_step)
    if recurrent is None:
        sequence = SNN(
            step,
            lambda currents: LIFBoxFeedForwardState(v=torch.zeros_like(currents[0])),
            p=rule,
            dt=1.0,
        )

        def run(currents: Tensor) -> Tensor:
            raster: Tensor = sequence(currents)[0]
            return raster

        return run

    cell = SNNCell(
        step,
        lambda current: LIFBoxFeedForwardState(v=torch.zeros_like(current)),
        p=rule,
        dt=1.0,
    )

    def run_recurrently(currents: Tensor) -> Tensor:
        spikes, membrane, raster = torch.zeros_like(currents[0]), None, []
        for current in currents:
            spikes, membrane = cell(current + recurrent(spikes), membrane)
            raster.append(spikes)
        return torch.stack(raster)

    return run_recurrently
