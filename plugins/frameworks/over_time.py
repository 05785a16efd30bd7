"""Functions that arrange, take, join or reduce the axes of a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from spikeserve.models.spec.readouts import Reduction
from spikeserve.plugins.frameworks import arithmetic
from spikeserve.plugins.frameworks.axes import Axes, Axis, AxisKind, AxisPart
from spikeserve.plugins.frameworks.function_modules import Slice, sum_pool
from spikeserve.plugins.frameworks.nouns import (
    PADDING,
    Call,
    GraphReadout,
    Rule,
    Signal,
    StepValue,
    TimeReduction,
    TracedValue,
    Unsupported,
    UnsupportedAxes,
)


def same(call: Call) -> TracedValue:
    """Pass a value on; a conversion to another type than float32 is unsupported."""
    _, traced = call.taken
    if call.out.dtype.is_floating_point and call.out.dtype.itemsize != 4:
        raise Unsupported(f"converts to {call.out.dtype}, and a network computes in float32")
    return traced


def reshape(call: Call) -> TracedValue:
    """Reshape to the shape of the function's result."""
    _, traced = call.taken
    return replace(traced, axes=traced.axes.reshaped(call.out.shape))


def repeat(call: Call) -> TracedValue:
    """Repeat along a new axis, which is time: the value is the same at each step."""
    tensor, traced = call.signal
    added = call.out.dim() - tensor.dim()
    axes = list(((),) * added + traced.axes.axes)
    values = traced.values
    for place, (before, after) in enumerate(zip((1,) * added + tuple(tensor.shape), call.out.shape, strict=True)):
        if before == after:
            continue
        if axes[place] or traced.axes.timed or any(value.step is not None for value in values):
            raise UnsupportedAxes("repeats values of a sample, the batch or some steps, which has no node")
        axes[place] = (AxisPart(AxisKind.TIME, after),)
        values = values * after
    return Signal(Axes(tuple(axes)), values)


SAME = ("contiguous", "clone", "detach", "float", "to", "cpu", "type", "type_as", "alias", "requires_grad")
RESHAPES = ("reshape", "view", "flatten", "unflatten", "ravel", "view_as", "reshape_as")
REPEATS = ("repeat", "expand", "expand_as", "tile", "broadcast_to")
VIEWS: dict[str, Rule] = {
    **dict.fromkeys((*SAME, "double", "half", "bfloat16"), same),
    **dict.fromkeys(RESHAPES, reshape),
    **dict.fromkeys(REPEATS, repeat),
}
STRIDED = frozenset(
    (
        *("permute", "transpose", "t", "T", "mT", "movedim", "unsqueeze", "squeeze"),
        *("__getitem__", "select", "narrow", "unbind", "split", "chunk"),
    )
)


def strided(call: Call) -> list[TracedValue]:
    """Trace a view: a function that arranges or splits the axes of a tensor, or takes steps or parts along them.

    The function runs on a tensor without values whose axes have strides of their own: those of its result, and where
    it begins, say which axis each one is and what was taken of it.
    """
    tensor, traced = call.taken
    index = call.args[1:2] if call.name == "__getitem__" else ()
    for item in index[0] if index and isinstance(index[0], tuple) else index:
        if (isinstance(item, Tensor) and item.dim()) or isinstance(item, bool | Sequence):
            raise Unsupported("takes values by a list of indices, which has no node")
    sizes = tensor.shape
    strides = [2 * math.prod(size + 1 for size in sizes[place + 1 :]) for place in range(tensor.dim())]
    empty = torch.empty_strided(sizes, strides, device="meta")
    arguments = [empty if each is tensor else each for each in call.args]
    shown = call.func(*arguments, **{name: empty if each is tensor else each for name, each in call.kwargs.items()})
    if isinstance(shown, Tensor):
        return [_shown(call, tensor, traced, strides, shown, call.out)]
    return [_shown(call, tensor, traced, strides, *each) for each in zip(shown, call.out, strict=True)]


def _shown(
    call: Call, tensor: Tensor, traced: Signal | TimeReduction, strides: Sequence[int], view: Tensor, out: Tensor
) -> Signal | TimeReduction:
    """Return the traced value of one view of a tensor with these strides."""
    places = list[int | None]()  # which axis each one of the view was, from the last to the first
    for size, stride in zip(reversed(view.shape), reversed(view.stride()), strict=True):
        places.append(_place(tensor.shape, strides, size, stride, places))
    places.reverse()
    axes, kept = traced.axes, _kept(tensor, traced.axes, strides, view, places)
    arranged = [() if place is None else axes.axes[place] for place in places]
    if not kept:
        return replace(traced, axes=Axes(tuple(arranged)))
    ((place, part), *others) = kept.items()
    if others or not isinstance(traced, Signal):
        raise UnsupportedAxes("takes a part of a sample or of the batch, which has no node")
    if place != axes.time:
        return _part(call, tensor, traced, places, place, part, out)
    values = traced.values[part]
    if place in places:
        arranged[places.index(place)] = (AxisPart(AxisKind.TIME, len(values)),)
    return Signal(Axes(tuple(arranged)), values)


def _kept(
    tensor: Tensor, axes: Axes, strides: Sequence[int], view: Tensor, places: Sequence[int | None]
) -> dict[int, slice]:
    """Return the part that a view has of each axis, by its place; axes that are there as a whole are left out."""
    kept = dict[int, slice]()
    for place, (size, stride) in enumerate(zip(tensor.shape, strides, strict=True)):
        start = view.storage_offset() // stride % (size + 1)
        if place in places:
            at = places.index(place)
            step = max(1, view.stride(at) // stride)
            if (start, view.shape[at], step) != (0, size, 1):
                kept[place] = slice(start, start + step * view.shape[at], step)
        elif place == axes.time:
            kept[place] = slice(start, start + 1)
        elif axes.axes[place] and (size > 1 or any(part.kind is AxisKind.BATCH for part in axes.axes[place])):
            raise UnsupportedAxes("takes one value out of a sample or of the batch, which has no node")
    return kept


def _place(
    sizes: Sequence[int], strides: Sequence[int], size: int, stride: int, behind: Sequence[int | None]
) -> int | None:
    """Return the axis that has a stride or a multiple of it, None for a new one; `behind` are those already found."""
    for place, (whole, own) in enumerate(zip(sizes, strides, strict=True)):
        step = stride // own
        if stride % own == 0 and (step == 1 or 1 < step < whole) and size <= whole and place not in behind:
            return place
    return None


UNWRITTEN = StepValue(-1, None)


def _part(
    call: Call, tensor: Tensor, signal: Signal, places: Sequence[int | None], place: int, kept: slice, part: Tensor
) -> Signal:
    """Return a part of each sample along one of its axes, which comes first meanwhile."""
    first = len(signal.axes.leading)
    if place < first or kept.step != 1 or [*places] != [*range(tensor.dim())]:
        raise UnsupportedAxes("takes a part of the batch, or not all between two ends of a sample, which has no node")
    start, stop, _ = kept.indices(tensor.shape[place])
    order = [*range(first), place, *(axis for axis in range(first, tensor.dim()) if axis != place)]
    taken = call.apply(
        ("part", start, stop),
        Slice(start, stop),
        "part",
        replace(signal, axes=signal.axes.permuted(order)),
        tensor.permute(order),
        part.permute(order),
    )
    return replace(taken, axes=taken.axes.permuted([order.index(axis) for axis in range(tensor.dim())]))


def padded(module: nn.ConstantPad1d, values: Sequence[StepValue]) -> tuple[StepValue, ...]:
    """Return steps with those of a padding around them, or without so many where it is below 0."""
    left, right = module.padding
    if module.value != 0:
        raise Unsupported(f"pads time with {module.value:g}, expected zeros, which are what there was before a run")
    kept = values[max(0, -left) : len(values) - max(0, -right)]
    return (*[PADDING] * left, *kept, *[PADDING] * right)


def taps_of(conv: nn.Conv1d, values: Sequence[StepValue]) -> tuple[tuple[int, ...], list[StepValue]]:
    """Return how many steps ago each place of a kernel sees, and the steps that it runs over; raises Unsupported."""
    stride, dilation, kernel = (sizes[0] for sizes in (conv.stride, conv.dilation, conv.kernel_size))
    left, right = conv._reversed_padding_repeated_twice
    if stride != 1 or (conv.padding_mode != "zeros" and left + right):
        raise Unsupported(
            f"runs along time with stride {stride} and padding_mode '{conv.padding_mode}', expected 1, since all of a "
            "network runs at each step of its input, and zeros"
        )
    steps = [value for value in values if value != PADDING]
    before = left + next((place for place, value in enumerate(values) if value != PADDING), 0)
    numbered = [StepValue(value.node, place if value.step is None else value.step) for place, value in enumerate(steps)]
    whole = [StepValue(numbered[0].node, place) for place in range(len(steps))] if steps else []
    if not steps or numbered != whole or [*values[before - left :][: len(steps)]] != steps:
        raise Unsupported("runs along time over what is not all steps in their order")
    if before < dilation * (kernel - 1):
        raise Unsupported(
            f"looks ahead by {dilation * (kernel - 1) - before}, which no stream can: pad time by "
            f"{dilation * (kernel - 1)} on the left alone, and train it so; or, if no neuron has a state, import it "
            "for whole samples as one step: --input-shape CHANNELS,STEPS --time-steps 1"
        )
    return tuple(before - dilation * place for place in range(kernel)), numbered


def stack(call: Call) -> TracedValue:
    """Return steps that are stacked to an axis of time; or samples, to an axis of a sample."""
    signals = _signals(call)
    place = call.argument(1, "dim", 0) % call.out.dim()
    steps = [value.step for signal in signals for value in signal.values]
    if signals[0].axes.timed or (len(steps) > 1 and steps[0] is not None and len(set(steps)) == 1):
        beside = [replace(signal, axes=signal.axes.inserted(place)) for signal in signals]
        return arithmetic.concatenate(call, beside, place)
    return _joined(signals, signals[0].axes.inserted(place), place)


def cat(call: Call) -> TracedValue:
    """Return steps that are put one after another; or samples side by side."""
    signals = _signals(call)
    place = call.argument(1, "dim", 0) % call.out.dim()
    axes = signals[0].axes
    if len(signals) == 1:
        return signals[0]
    if place != axes.time and (axes.axes[place] or axes.timed):
        return arithmetic.concatenate(call, signals, place)
    return _joined(signals, axes, place)


def _signals(call: Call) -> list[Signal]:
    signals = []
    for tensor in call.argument(0, "tensors"):
        traced = call.traced(tensor)
        if not isinstance(traced, Signal):
            raise Unsupported("joins the network's values with others, which has no node")
        signals.append(traced)
    return signals


def _joined(signals: Sequence[Signal], axes: Axes, place: int) -> Signal:
    values = tuple(value for signal in signals for value in signal.values)
    if len({signal.axes.without(place) if axes.time is not None else signal.axes for signal in signals}) > 1:
        raise Unsupported("joins steps of different axes, which has no node")
    time: Axis = (AxisPart(AxisKind.TIME, len(values)),)
    return Signal(axes.without(place).inserted(place, time), values)


def write(call: Call) -> TracedValue:
    """Return a tensor of which one step more is written, as in `out[step] = spikes`."""
    target, index, source = call.args
    signal = call.traced(source)
    index = index if isinstance(index, tuple) else (index,)
    places = [place for place, item in enumerate(index) if not isinstance(item, slice)]
    whole = all(item == slice(None) for item in index if isinstance(item, slice))
    if not isinstance(signal, Signal) or len(places) != 1 or not whole or Ellipsis in index or signal.axes.timed:
        raise Unsupported("writes to a part of a tensor that is not a step, which has no node")
    place, size = places[0], target.shape[places[0]]
    step = int(index[place]) % size
    before = call.traced(target)
    axes = signal.axes.inserted(place, (AxisPart(AxisKind.TIME, size),))
    values = [UNWRITTEN] * size
    if isinstance(before, Signal):
        if before.axes != axes:
            raise Unsupported("writes steps over what is not steps, which has no node")
        values = list(before.values)
    values[step] = signal.values[0]
    return Signal(axes, tuple(values))


def read_over_time(over: Reduction, signal: Signal, axes: Axes, where: str) -> TimeReduction:
    """Reduce a signal's axis of time; `axes` are those without it."""
    nodes = {value.node for value in signal.values}
    if len(nodes) > 1:
        raise Unsupported("reads steps that are not copies of each other")
    steps = tuple(place if value.step is None else value.step for place, value in enumerate(signal.values))
    return TimeReduction(GraphReadout(nodes.pop(), over, where=where), steps, axes)


def reduce(call: Call) -> TracedValue:
    """Reduce time by a sum, mean or maximum, or the whole of a sample's axes, as a pool."""
    tensor, traced = call.taken
    over = {"sum": Reduction.SUM, "mean": Reduction.MEAN, "max": Reduction.MAX, "amax": Reduction.MAX}[call.name]
    dims = call.argument(1, "dim")
    if isinstance(dims, Tensor):
        raise Unsupported("takes the greater of two values, which has no node")
    places = sorted(
        place % tensor.dim() for place in ((dims,) if isinstance(dims, int) else dims or range(tensor.dim()))
    )
    keep = bool(call.argument(2, "keepdim", False))
    if isinstance(traced, Signal) and places == [traced.axes.time]:
        axes = traced.axes.without(places[0])
        return read_over_time(over, traced, axes.inserted(places[0]) if keep else axes, call.where)
    if places[0] < len(traced.axes.leading):
        raise Unsupported("reduces other axes than time or a sample's own, which has no node")
    if isinstance(traced, TimeReduction):
        if not traced.is_linear or over is Reduction.MAX:
            raise Unsupported(
                "reduces what is read over time already, which no readout does: reduce what each step gives"
            )
        return traced.of(_reduced(call, tensor, traced.at_each_step(), places, over, keep=keep))
    behind, lengths = places[0] > len(traced.axes.leading), len(traced.axes.sample) - 1
    pools = _pooled if behind and lengths in (1, 2) and over is not Reduction.MAX else _reduced
    return pools(call, tensor, traced, places, over, keep=keep)


def _pooled(
    call: Call, tensor: Tensor, signal: Signal, places: Sequence[int], over: Reduction, *, keep: bool
) -> Signal:
    """Return the sum or mean over a length, or over height or width or both, as a pool of that size."""
    first, sizes = len(signal.axes.leading), signal.axes.sample[1:]
    axes = [place - first - 1 for place in places]
    kernel = tuple(size if axis in axes else 1 for axis, size in enumerate(sizes))
    means = nn.AvgPool1d(kernel) if len(kernel) == 1 else nn.AvgPool2d((kernel[0], kernel[1]))
    module, name = (means, "average_pool") if over is Reduction.MEAN else (sum_pool(kernel), "sum_pool")
    shown = call.out.reshape([1 if place in places else size for place, size in enumerate(tensor.shape)])
    pooled = call.apply((name, kernel), module, name, signal, tensor, shown)
    out = pooled.axes
    for place in reversed(places):
        out = out if keep else out.without(place)
    return replace(pooled, axes=out)


def _reduced(
    call: Call, tensor: Tensor, signal: Signal, places: Sequence[int], over: Reduction, *, keep: bool
) -> Signal:
    """Return the sum, mean or maximum over any axes of a sample, which come last meanwhile, as a pool of their size."""
    first, sizes = len(signal.axes.leading), tensor.shape
    kept = [axis for axis in range(first, tensor.dim()) if axis not in places]
    order = [*range(first), *kept, *places]
    leading, rows = tuple(sizes[:first]), tuple(sizes[axis] for axis in kept)
    size = math.prod(sizes[axis] for axis in places)
    shape = (*leading, math.prod(rows), size)
    pools = {Reduction.SUM: sum_pool((size,)), Reduction.MEAN: nn.AvgPool1d(size), Reduction.MAX: nn.MaxPool1d(size)}
    values = call.out if isinstance(call.out, Tensor) else call.out[0]
    pooled = call.apply(
        ("reduced", over, size),
        pools[over],
        f"{over}_pool",
        replace(signal, axes=signal.axes.permuted(order).reshaped(shape)),
        tensor.permute(order).reshape(shape),
        values.reshape(*shape[:-1], 1),
    )
    axes = pooled.axes.without(first + 1).reshaped((*leading, *rows))
    for place in places if keep else ():
        axes = axes.inserted(place)
    return replace(pooled, axes=axes)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("sum", "mean", "max", "amax"), reduce),
    "stack": stack,
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "__setitem__": write,
}
