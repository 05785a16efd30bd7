"""A small framework of plain PyTorch for tests of the importer itself: IF neurons that take a step or all of them."""

import torch
from torch import Tensor, nn

from spikeserve.models.spec.nodes import IF, Threshold
from spikeserve.models.spec.rules import Fire
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.framework import Framework, Layer, TimeAxes, folded
from spikeserve.plugins.frameworks.nouns import ModuleRun
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.plugins.frameworks.torch import MODULES


class Spike(nn.Module):
    """A neuron without a membrane: it only fires."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).float()


class Cell(nn.Module):
    """An IF neuron of threshold 1 that takes one step: its membrane is handed on, or kept by it."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | None = None

    def reset(self) -> None:
        self.membrane = None

    def forward(self, current: Tensor, membrane: Tensor | None = None) -> tuple[Tensor, Tensor]:
        held = self.membrane if membrane is None else membrane
        charged = current if held is None else held + current
        spikes = (charged >= 1).float()
        self.membrane = charged - spikes
        return spikes, self.membrane


class Hidden(Cell):
    """The same, which returns only its spikes."""

    def forward(self, current: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(current)[0]


class Steps(nn.Module):
    """The same over all steps (time_steps, batch, *shape)."""

    def forward(self, currents: Tensor) -> Tensor:
        cell = Hidden()
        return torch.stack([cell(current) for current in currents])


def spike_rule(layer: Layer) -> None:
    layer.add(Threshold, threshold=1e-30, fire=Fire.ABOVE_THRESHOLD)


def cell_rule(layer: Layer) -> None:
    layer.add(IF)


def run(module: nn.Module, steps: Tensor) -> ModuleRun:
    if isinstance(module, Cell):
        module.reset()
        return ModuleRun(torch.stack([cell_spikes(module(step)) for step in steps]))
    return ModuleRun(module(steps)) if isinstance(module, Steps) else folded(module, steps)


def cell_spikes(returned: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return returned if isinstance(returned, Tensor) else returned[0]


def takes(module: nn.Module) -> TimeAxes | None:
    return TimeAxes.STEP if isinstance(module, Cell) else TimeAxes.TIME_FIRST if isinstance(module, Steps) else None


PLAIN = Framework(
    name="torch",
    rule="",
    containers=frozenset({nn.Sequential}),
    rules={**MODULES, Spike: spike_rule, Cell: cell_rule, Hidden: cell_rule, Steps: cell_rule},
    run=run,
    takes=takes,
)


def taken_in(network: nn.Module, *shape: int, **served: object) -> ConvertedNetwork:
    options = {"time_steps": 8} | served
    return convert(
        network.eval().requires_grad_(False), PLAIN, FrameworkOptions.read({"input_shape": shape, **options})
    )
