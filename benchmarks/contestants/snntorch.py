"""snnTorch: Leaky and RLeaky, without their delayed reset in inference, and with it, detached, in training."""

from __future__ import annotations

from typing import Any

import snntorch
import torch
from snntorch import surrogate
from torch import Tensor, nn

from benchmarks.contestants.base import SLOPE, Stage
from benchmarks.contestants.torch_stack import Layer, Library, Setting, stepwise


def neurons(stage: Stage, recurrent: nn.Linear | None, setting: Setting) -> Layer:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    rule: dict[str, Any] = {"beta": stage.decay, "threshold": stage.threshold}
    if setting.trains:
        rule |= {"spike_grad": surrogate.fast_sigmoid(slope=SLOPE)}
    else:
        rule |= {"reset_mechanism": "subtract" if stage.subtracts else "zero"}
        rule |= {"reset_delay": False, "surrogate_disable": True}
    if recurrent is None:
        return stepwise(setting.wrap(snntorch.Leaky(**rule)))
    made = snntorch.RLeaky(**rule, linear_features=recurrent.in_features)
    made.recurrent = recurrent
    cell = setting.wrap(made)

    def step(current: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        spikes, membrane = cell(current, *state)
        return spikes, (spikes, membrane)

    return stepwise(step, lambda current: (torch.zeros_like(current), torch.zeros_like(current)))


LIBRARY = Library(neurons)
