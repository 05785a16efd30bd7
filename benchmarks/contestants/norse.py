"""Norse: its sequence module over LIFBox and IAF steps, with a plain threshold, under inference_mode.

LIFBox computes v + k * (i - v), so that the weights are divided by k; where k is a power of two that rounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from norse.torch.functional.iaf import IAFFeedForwardState, IAFParameters, iaf_feed_forward_step
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.snn import SNN, SNNCell
from torch import Tensor

from benchmarks.contestants import torch_stack
from benchmarks.contestants.base import Job, Run, Skipped, Stage, scaled, stages


def prepare(job: Job) -> Run:
    """Return a run of Norse."""
    factors = [1.0 if stage.decay == 1 else 1 / (1 - stage.decay) for stage in stages(job.network)]
    return torch_stack.prepare(job, neurons, scaled(job.network, factors))


def neurons(stage: Stage) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    threshold = torch.tensor(stage.threshold)
    if stage.decay == 1:
        if stage.subtracts:
            raise Skipped("Norse's IAF does not reset by subtraction")
        step, state = iaf_feed_forward_step, IAFFeedForwardState
        rule = IAFParameters(v_th=threshold, method="heaviside")
    else:
        step, state = lif_box_feed_forward_step, LIFBoxFeedForwardState
        rule = LIFBoxParameters(
            tau_mem_inv=torch.tensor(1 - stage.decay),
            v_th=threshold,
            method="heaviside",
            reset_method=reset_subtract if stage.subtracts else reset_value,
        )
    recurrent = torch_stack.recurrent(stage)
    if recurrent is None:
        sequence = SNN(step, lambda currents: state(v=torch.zeros_like(currents[0])), p=rule, dt=1.0)

        def run(currents: Tensor) -> Tensor:
            raster: Tensor = sequence(currents)[0]
            return raster

        return run

    cell = SNNCell(step, lambda current: state(v=torch.zeros_like(current)), p=rule, dt=1.0)

    def run_recurrently(currents: Tensor) -> Tensor:
        spikes, membrane, raster = torch.zeros_like(currents[0]), None, []
        for current in currents:
            spikes, membrane = cell(current + recurrent(spikes), membrane)
            raster.append(spikes)
        return torch.stack(raster)

    return run_recurrently
