"""Which of what a forward returns is the network's answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spikeserve.training.errors import NotConvertible
from spikeserve.training.importers.frameworks.axes import Kind, Part, Unclear
from spikeserve.training.importers.frameworks.fold import Value
from spikeserve.training.importers.frameworks.layouts import Layout
from spikeserve.training.importers.frameworks.meaning import Answer, Meaning, Signal, Unknown
from spikeserve.training.importers.frameworks.trace import Recorder, tensors


def answer_of(
    recorder: Recorder, returned: Any, layout: Layout, chosen: str | None
) -> tuple[Signal | Answer, Tensor, str]:
    """Return the first of what a network returns that depends on its input, or the chosen one, and a note on others."""
    if returned is None:
        raise NotConvertible(
            "its forward returns nothing: let your factory return a module whose forward returns the answer"
        )
    values = _values_of(returned)
    if chosen is not None and chosen not in values:
        raise NotConvertible(f"answer: '{chosen}' is none of what its forward returns, expected {', '.join(values)}")
    known = {name: found for name, value in values.items() if (found := _meanings(recorder, value))}
    names = [name for name in known if chosen in (None, name)]
    if not names:
        raise NotConvertible(
            "what it returns does not depend on its input, as far as PyTorch shows: what torch.func, torch.jit.script "
            "and extensions compute is not seen"
        )
    meaning, tensor = _meant(known[names[0]])
    others = [f"'{name}'" for name in names[1:] if _is_another(recorder, meaning, known[name][0][0], layout)]
    if not others:
        return meaning, tensor, ""
    note = f"Of what its forward returns '{names[0]}' is read, unless --answer names another: {', '.join(others)}."
    return meaning, tensor, note


def _values_of(returned: Any) -> dict[str, Any]:
    """Return what a forward returns by name: the keys of a dictionary, or the places from 1 on."""
    if isinstance(returned, dict):
        return {str(key): value for key, value in returned.items()}
    values = returned if isinstance(returned, tuple) else (returned,)
    return {str(place): value for place, value in enumerate(values, start=1)}


def _meanings(recorder: Recorder, value: Any) -> list[tuple[Meaning, Tensor]]:
    """Return those tensors in a value that depend on the input, each behind what it means."""
    return [(meaning, tensor) for tensor in tensors(value) if (meaning := _meaning(recorder, tensor)) is not None]


def _meaning(recorder: Recorder, tensor: Tensor) -> Meaning | None:
    try:
        return recorder.read(tensor)
    except Unclear as error:
        return Unknown(f"{error.where or recorder.line()}: {error}", error.refusal)


def _meant(found: list[tuple[Meaning, Tensor]]) -> tuple[Signal | Answer, Tensor]:
    """Return what the first tensor of a value means, or all together where they are the steps of one node."""
    first, tensor = found[0]
    if isinstance(first, Unknown):
        raise first.refusal(first.sentence)
    steps = tuple(each for meaning, _ in found if isinstance(meaning, Signal) for each in meaning.values)
    in_order = steps == tuple(Value(steps[0].node, place) for place in range(len(found))) if steps else False
    if isinstance(first, Signal) and len(found) > 1 and in_order:
        axes = first.axes.inserted(0, (Part(Kind.TIME, len(steps)),))
        return Signal(axes, steps), torch.stack([tensor for _, tensor in found])
    return first, tensor


def _is_another(recorder: Recorder, read: Signal | Answer, other: Meaning, layout: Layout) -> bool:
    """Return whether a value might be the answer too: it is of other nodes or steps, and no state that is handed on."""
    if isinstance(other, Unknown):
        return False
    nodes = recorder.fold.nodes
    if isinstance(other, Signal):
        node = other.values[0].node
        if node < 0 or (layout.by_step and nodes[node].membrane):
            return False

    def of(meaning: Signal | Answer) -> set[Value]:
        if isinstance(meaning, Answer):
            values = tuple(Value(meaning.reading.node, step) for step in meaning.steps)
        else:
            values = meaning.values
        return {Value(nodes[node].sources[0] if nodes[node].membrane else node, step) for node, step in values}

    return of(other) != of(read)
