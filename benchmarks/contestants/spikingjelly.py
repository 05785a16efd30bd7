"""SpikingJelly: IFNode and LIFNode in multi-step mode; a recurrent layer has to go step by step."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from benchmarks.contestants.base import SLOPE, Stage
from benchmarks.contestants.torch_stack import Layer, Library, Setting, as_it_is, stepwise


def neurons(stage: Stage, recurrent: nn.Linear | None, setting: Setting) -> Layer:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    by_step = recurrent is not None or setting.wrap is not as_it_is
    rule: dict[str, Any] = {
        "v_threshold": stage.threshold,
        "v_reset": None if stage.subtracts else 0.0,
        "step_mode": "s" if by_step else "m",
    }
    if setting.trains:
        rule |= {"surrogate_function": surrogate.SuperSpike(alpha=SLOPE), "detach_reset": True}
    if stage.decay == 1:
        node = neuron.IFNode(**rule)
    else:
        node = neuron.LIFNode(tau=1 / (1 - stage.decay), decay_input=False, **rule)
    node.train(setting.trains)
    step = setting.wrap(node)
    layer = stepwise(lambda current, _: (step(current), None), lambda _: None, recurrent) if by_step else node

    def run(currents: Tensor) -> Tensor:
        functional.reset_net(node)
        raster: Tensor = layer(currents)
        return raster

    return run


LIBRARY = Library(neurons)
