"""How a forward may be called, and which of what it returns is the answer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikeserve.models.spec.parameters import Shape
from spikeserve.plugins.frameworks.axes import Axes, Axis, AxisKind, AxisPart
from spikeserve.plugins.frameworks.graph import StepValue
from spikeserve.plugins.frameworks.state_finder import tensors
from spikeserve.plugins.frameworks.traced_values import Signal, TimeReduction, TracedValue, UnsupportedValue
from spikeserve.plugins.frameworks.tracer import Tracer
from spikeserve.training.errors import NotConvertible

BATCH = 3
CALLED_STEPS = 5  # of a network that is called for each step
STEP_NAMES = ("t", "timewindow", "seqlength", "seqlen", "duration")  # of a number of steps, and all that end in "steps"
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Layout:
    """How a forward is given its input: what of, its axes, and all steps at once or one in each of its calls.

    `steps` is 0 for a sample that is the same at all steps, of which the forward knows the number. `values` are what is
    given, (time_steps or 1, batch, *shape).
    """

    name: str
    sources: tuple[Tensor, ...]
    axes: Axes
    values: Tensor
    steps: int
    by_step: bool = False

    @property
    def batch(self) -> int:
        """The number of samples."""
        return len(self.values[0])

    @property
    def of_any_batch(self) -> str:
        """What the forward takes, whatever the batch: `one step of (batch, 16)`."""
        return str(self).replace(f"batch={self.batch}", "batch")

    def __str__(self) -> str:
        names = {AxisKind.BATCH: "batch="}
        shown = ("·".join(f"{names.get(part.kind, '')}{part.size}" for part in axis) for axis in self.axes.axes)
        return f"{self.name} of ({', '.join(shown)})"


def layouts(shape: Shape, time_steps: int, batch: int, seed: int = 0) -> Iterator[Layout]:
    """Return each way in which a forward may take its input; no two of its values are the same."""
    values = torch.rand((time_steps, batch, *shape), generator=torch.Generator().manual_seed(seed))
    time, samples = (AxisPart(AxisKind.TIME, time_steps),), (AxisPart(AxisKind.BATCH, batch),)

    def layout(name: str, source: Tensor, *leading: Axis, steps: int = time_steps) -> Layout:
        return Layout(name, (source,), Axes.of(leading, shape), values, steps)

    called = values[:CALLED_STEPS]
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


def answer_of(
    tracer: Tracer, returned: Any, layout: Layout, chosen: str | None
) -> tuple[Signal | TimeReduction, Tensor, str]:
    """Return the first of what a network returns that depends on its input, or the chosen one, and a note on others."""
    if returned is None:
        raise NotConvertible(
            "its forward returns nothing: let your factory return a module whose forward returns the answer"
        )
    values = _values_of(returned)
    if chosen is not None and chosen not in values:
        raise NotConvertible(f"answer: '{chosen}' is none of what its forward returns, expected {', '.join(values)}")
    known = {name: pairs for name, value in values.items() if (pairs := _traced_values(tracer, value))}
    names = [name for name in known if chosen in (None, name)]
    if not names:
        raise NotConvertible(
            "what it returns does not depend on its input, as far as PyTorch shows: what torch.func, torch.jit.script "
            "and extensions compute is not seen"
        )
    traced, tensor = _meant(known[names[0]])
    others = [f"'{name}'" for name in names[1:] if _is_another(tracer, traced, known[name][0][0], layout)]
    if not others:
        return traced, tensor, ""
    note = f"Of what its forward returns '{names[0]}' is read, unless --answer names another: {', '.join(others)}."
    return traced, tensor, note


def _values_of(returned: Any) -> dict[str, Any]:
    """Name the values that a forward returns: by the keys of a dictionary, or by their places from 1 on."""
    if isinstance(returned, dict):
        return {str(key): value for key, value in returned.items()}
    values = returned if isinstance(returned, tuple) else (returned,)
    return {str(place): value for place, value in enumerate(values, start=1)}


def _traced_values(tracer: Tracer, value: Any) -> list[tuple[TracedValue, Tensor]]:
    """Return the tensors in a value that depend on the input, each behind its traced value."""
    pairs = ((tracer.node_output(tensor, is_read=True), tensor) for tensor in tensors(value))
    return [(traced, tensor) for traced, tensor in pairs if traced is not None]


def _meant(pairs: list[tuple[TracedValue, Tensor]]) -> tuple[Signal | TimeReduction, Tensor]:
    """Return the traced value of the first tensor, or of all together where they are the steps of one node."""
    first, tensor = pairs[0]
    if isinstance(first, UnsupportedValue):
        raise first.refusal(first.sentence)
    steps = tuple(each for traced, _ in pairs if isinstance(traced, Signal) for each in traced.values)
    in_order = steps == tuple(StepValue(steps[0].node, place) for place in range(len(pairs))) if steps else False
    if isinstance(first, Signal) and len(pairs) > 1 and in_order:
        axes = first.axes.inserted(0, (AxisPart(AxisKind.TIME, len(steps)),))
        return Signal(axes, steps), torch.stack([tensor for _, tensor in pairs])
    return first, tensor


def _is_another(tracer: Tracer, read: Signal | TimeReduction, other: TracedValue, layout: Layout) -> bool:
    """Return whether a value might be the answer too: it is of other nodes or steps, and no state that is handed on."""
    if isinstance(other, UnsupportedValue):
        return False
    nodes = tracer.step_graph.nodes
    if isinstance(other, Signal):
        node = other.values[0].node
        if node < 0 or (layout.by_step and nodes[node].membrane):
            return False

    def of(traced: Signal | TimeReduction) -> set[StepValue]:
        if isinstance(traced, TimeReduction):
            values = tuple(StepValue(traced.readout.node, step) for step in traced.steps)
        else:
            values = traced.values
        return {StepValue(nodes[node].sources[0] if nodes[node].membrane else node, step) for node, step in values}

    return of(other) != of(read)
