"""Functions that only arrange the axes of a tensor: reshapes, permutations, copies, repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spikeserve.training.importers.frameworks.axes import Axes, Kind, Part, Unclear, UnclearAxes
from spikeserve.training.importers.frameworks.call import Call, Rule
from spikeserve.training.importers.frameworks.meaning import Answer, Meaning, Signal


def same(call: Call) -> Meaning:
    """Return what is passed on; a conversion to another type than float32 is none."""
    _, meaning = call.taken
    if call.out.dtype.is_floating_point and call.out.dtype.itemsize != 4:
        raise Unclear(f"converts to {call.out.dtype}, and a network computes in float32")
    return meaning


def reshape(call: Call) -> Meaning:
    """Return what is reshaped: the shape is read from what came out."""
    _, meaning = call.taken
    return replace(meaning, axes=meaning.axes.reshaped(call.out.shape))


def permute(call: Call) -> Meaning:
    """Return what is permuted."""
    tensor, meaning = call.taken
    order = call.args[1] if isinstance(call.argument(1, "dims"), Sequence) else call.args[1:]
    order = order or call.kwargs["dims"]
    return _ordered(meaning, [place % tensor.dim() for place in order])


def transpose(call: Call) -> Meaning:
    """Return what is transposed: two axes, or all of `t` and `.T`."""
    tensor, meaning = call.taken
    order = list(range(tensor.dim()))
    if call.name == "transpose":
        first, second = (call.argument(place, f"dim{place - 1}") % tensor.dim() for place in (1, 2))
        order[first], order[second] = order[second], order[first]
    else:
        order.reverse()
    return _ordered(meaning, order)


def move(call: Call) -> Meaning:
    """Return what has one axis moved."""
    tensor, meaning = call.taken
    source, target = (call.argument(place, name) for place, name in ((1, "source"), (2, "destination")))
    if not isinstance(source, int) or not isinstance(target, int):
        raise Unclear("moves several axes, expected one")
    order = list(range(tensor.dim()))
    order.insert(target % tensor.dim(), order.pop(source % tensor.dim()))
    return _ordered(meaning, order)


def _ordered(meaning: Signal | Answer, order: Sequence[int]) -> Meaning:
    return replace(meaning, axes=meaning.axes.permuted(order))


def unsqueeze(call: Call) -> Meaning:
    """Return what has one axis of size 1 more."""
    tensor, meaning = call.taken
    return replace(meaning, axes=meaning.axes.inserted(call.argument(1, "dim") % (tensor.dim() + 1)))


def squeeze(call: Call) -> Meaning:
    """Return what has an axis of size 1 less, or all of them."""
    tensor, meaning = call.taken
    given = call.argument(1, "dim")
    given = (given,) if isinstance(given, int) else given
    places = range(tensor.dim()) if given is None else [place % tensor.dim() for place in given]
    axes = meaning.axes
    for place in sorted((place for place in places if tensor.shape[place] == 1), reverse=True):
        lost = [part.kind for part in axes.axes[place] if part.kind is not Kind.SAMPLE]
        if Kind.BATCH in lost:
            raise Unclear("squeezes a batch of one")
        axes = axes.without(place)
    return replace(meaning, axes=axes)


def repeat(call: Call) -> Meaning:
    """Return what is repeated along a new axis: the steps of what is the same in each."""
    tensor, meaning = call.signal
    added = call.out.dim() - tensor.dim()
    axes = list(((),) * added + meaning.axes.axes)
    values = meaning.values
    for place, (before, after) in enumerate(zip((1,) * added + tuple(tensor.shape), call.out.shape, strict=True)):
        if before == after:
            continue
        if axes[place] or meaning.axes.timed or any(value.step is not None for value in values):
            raise UnclearAxes("repeats values of a sample, the batch or some steps, which has no node")
        axes[place] = (Part(Kind.TIME, after),)
        values = values * after
    return Signal(Axes(tuple(axes)), values)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *(
                "contiguous",
                "clone",
                "detach",
                "float",
                "to",
                "cpu",
                "data",
                "type",
                "type_as",
                "alias",
                "requires_grad",
            ),
            *("double", "half", "bfloat16"),
        ),
        same,
    ),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "ravel", "view_as", "reshape_as"), reshape),
    **dict.fromkeys(("permute",), permute),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), lambda call: transpose(_named(call, "transpose"))),
    **dict.fromkeys(("t", "T"), transpose),
    **dict.fromkeys(("movedim", "moveaxis"), move),
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    **dict.fromkeys(("repeat", "expand", "expand_as", "tile", "broadcast_to"), repeat),
}


def _named(call: Call, name: str) -> Call:
    return replace(call, name=name)
