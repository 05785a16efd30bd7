"""Norse: its sequence module over LIFBox and IAF steps.

LIFBox computes v + k * (i - v), so that the weights are divided by k; where k is a power of two that rounds nothing.
"""

from __future__ import annotations

import torch
from norse.torch.functional.iaf import IAFFeedForwardState, IAFParameters, iaf_feed_forward_step
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.snn import SNN, SNNCell
from torch import Tensor, nn

from benchmarks.contestants.base import Skipped, Stage
from benchmarks.contestants.torch_stack import Layer, Library, Setting, stepwise


def subtract(spikes: Tensor, membrane: Tensor, _: Tensor, threshold: Tensor) -> Tensor:
    """Reset by subtraction, through which no gradient passes; Norse's own passes it, and computes more."""
    return membrane - spikes.detach() * threshold


def neurons(stage: Stage, recurrent: nn.Linear | None, setting: Setting) -> Layer:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    threshold = torch.tensor(stage.threshold)
    if stage.decay == 1:
        if stage.subtracts:
            raise Skipped("Norse's IAF does not reset by subtraction")
        step, state = iaf_feed_forward_step, IAFFeedForwardState
        rule = IAFParameters(v_th=threshold, method="heaviside")
    else:
        step, state = lif_box_feed_forward_step, LIFBoxFeedForwardState
        reset = reset_subtract if stage.subtracts else reset_value
        rule = LIFBoxParameters(
            tau_mem_inv=torch.tensor(1 - stage.decay),
            v_th=threshold,
            method="super" if setting.trains else "heaviside",  # the first has a slope of 1, whatever alpha says
            reset_method=subtract if setting.trains else reset,
        )
    step = setting.wrap(step)
    if recurrent is None:
        sequence = SNN(step, lambda currents: state(v=torch.zeros_like(currents[0])), p=rule, dt=1.0)
        return lambda currents: sequence(currents)[0]
    cell = SNNCell(step, lambda current: state(v=torch.zeros_like(current)), p=rule, dt=1.0)
    return stepwise(cell, lambda _: None, recurrent)


def factor(stage: Stage) -> float:
    """Return by how much a stage's weights are multiplied."""
    return 1.0 if stage.decay == 1 else 1 / (1 - stage.decay)


LIBRARY = Library(neurons, factor=factor)
