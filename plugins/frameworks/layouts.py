"""The layouts in which a forward may take its input, and what it is given beside that."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from spikeserve.models.spec.parameters import Shape
from spikeserve.plugins.frameworks.axes import Axes, Axis, AxisKind, AxisPart
from spikeserve.plugins.frameworks.nouns import Layout
from spikeserve.training.errors import NotConvertible

BATCH = 3
CALLED_STEPS = 5  # of a network that is called for each step
STEP_NAMES = ("t", "timewindow", "seqlength", "seqlen", "duration")  # of a number of steps, and all that end in "steps"
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def layouts(shape: Shape, time_steps: int, batch: int, seed: int = 0) -> Iterator[Layout]:
    """Return each way in which a forward may take its input; no two of its values are the same."""
    values = torch.rand((time_steps, batch, *shape), generator=torch.Generator().manual_seed(seed))
    return layouts_of(values, values[:CALLED_STEPS])


def layouts_of(values: Tensor, called: Tensor) -> Iterator[Layout]:
    """Return each way in which a forward may take values (time_steps, batch, *shape).

    `called` are the steps of a forward that takes them one by one.
    """
    time_steps, batch, *sample = values.shape
    shape = tuple(sample)
    time, samples = (AxisPart(AxisKind.TIME, time_steps),), (AxisPart(AxisKind.BATCH, batch),)

    def layout(name: str, source: Tensor, *leading: Axis, steps: int = time_steps) -> Layout:
        return Layout(name, (source,), Axes.of(leading, shape), values, steps)

    stepped = layout("one step", values[0], samples, steps=len(called))
    yield replace(stepped, sources=tuple(called), values=called, by_step=True)
    yield layout("time first", values, time, samples)
    yield layout("batch first", values.transpose(0, 1).contiguous(), samples, time)
    yield replace(layout("one sample for all steps", values[0], samples, steps=0), values=values[:1])
    yield layout("batch and time in one axis", values.transpose(0, 1).flatten(0, 1), (*samples, *time))
    alone = layout("all steps of one sample", values[:, 0], (AxisPart(AxisKind.BATCH, 1), *time))
    yield replace(alone, values=values[:, :1])
    for place in range(len(shape), 0, -1):  # time behind the sample's axes, or among them
        behind = layout("batch first, time later", values.movedim(0, 1 + place).contiguous(), samples)
        yield replace(behind, axes=behind.axes.inserted(1 + place, time), steps=time_steps)


def beside_input(network: nn.Module, time_steps: int) -> dict[str, int]:
    """Return a forward's arguments beside its input: the number of steps, where it takes that.

    Raises NotConvertible where it has to be given anything else.
    """
    arguments = dict[str, int]()
    for each in list(inspect.signature(network.forward).parameters.values())[1:]:
        bare = each.name.lower().replace("_", "")
        needed = each.default is inspect.Parameter.empty and each.kind in NAMED
        if (bare.endswith("steps") or bare in STEP_NAMES) and (needed or type(each.default) is int):
            arguments[each.name] = time_steps
        elif needed:
            raise NotConvertible(
                f"the network ({type(network).__name__}): its forward takes '{each.name}' beside its input, expected "
                f"the input alone or the number of steps: let your factory return a module that hands '{each.name}' on"
            )
    return arguments
