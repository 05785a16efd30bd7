"""Functions that arrange, take, join or reduce the axes of a tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spikeserve.training.importers.frameworks import arithmetic
from spikeserve.training.importers.frameworks.axes import Axes, Axis, AxisKind, AxisPart, Unsupported, UnsupportedAxes
from spikeserve.training.importers.frameworks.function_modules import Slice, SumPool
from spikeserve.training.importers.frameworks.graph import Reduction, StepValue
from spikeserve.training.importers.frameworks.traced_values import (
    Call,
    Rule,
    Signal,
    TimeReduction,
    TracedValue,
    read_over_time,
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


def permute(call: Call) -> TracedValue:
    """Permute all axes."""
    tensor, traced = call.taken
    order = call.args[1] if isinstance(call.argument(1, "dims"), Sequence) else call.args[1:]
    order = order or call.kwargs["dims"]
    return replace(traced, axes=traced.axes.permuted([place % tensor.dim() for place in order]))


def transpose(call: Call) -> TracedValue:
    """Swap two axes."""
    tensor, traced = call.taken
    order = list(range(tensor.dim()))
    first, second = (call.argument(place, f"dim{place - 1}") % tensor.dim() for place in (1, 2))
    order[first], order[second] = order[second], order[first]
    return replace(traced, axes=traced.axes.permuted(order))


def reverse(call: Call) -> TracedValue:
    """Reverse all axes, as `t` and `.T` do."""
    tensor, traced = call.taken
    return replace(traced, axes=traced.axes.permuted(range(tensor.dim())[::-1]))


def move(call: Call) -> TracedValue:
    """Move one axis."""
    tensor, traced = call.taken
    source, target = (call.argument(place, name) for place, name in ((1, "source"), (2, "destination")))
    if not isinstance(source, int) or not isinstance(target, int):
        raise Unsupported("moves several axes, expected one")
    order = list(range(tensor.dim()))
    order.insert(target % tensor.dim(), order.pop(source % tensor.dim()))
    return replace(traced, axes=traced.axes.permuted(order))


def unsqueeze(call: Call) -> TracedValue:
    """Insert an axis of size 1."""
    tensor, traced = call.taken
    return replace(traced, axes=traced.axes.inserted(call.argument(1, "dim") % (tensor.dim() + 1)))


def squeeze(call: Call) -> TracedValue:
    """Remove one axis of size 1, or all of them."""
    tensor, traced = call.taken
    given = call.argument(1, "dim")
    given = (given,) if isinstance(given, int) else given
    places = range(tensor.dim()) if given is None else [place % tensor.dim() for place in given]
    axes = traced.axes
    for place in sorted((place for place in places if tensor.shape[place] == 1), reverse=True):
        lost = [part.kind for part in axes.axes[place] if part.kind is not AxisKind.SAMPLE]
        if AxisKind.BATCH in lost:
            raise Unsupported("squeezes a batch of one")
        axes = axes.without(place)
    return replace(traced, axes=axes)


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


SAME = ("contiguous", "clone", "detach", "float", "to", "cpu", "data", "type", "type_as", "alias", "requires_grad")
RESHAPES = ("reshape", "view", "flatten", "unflatten", "ravel", "view_as", "reshape_as")
REPEATS = ("repeat", "expand", "expand_as", "tile", "broadcast_to")
VIEWS: dict[str, Rule] = {
    **dict.fromkeys((*SAME, "double", "half", "bfloat16"), same),
    **dict.fromkeys(RESHAPES, reshape),
    "permute": permute,
    "transpose": transpose,
    **dict.fromkeys(("t", "T"), reverse),
    "movedim": move,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    **dict.fromkeys(REPEATS, repeat),
}


UNWRITTEN = StepValue(-1, None)


def index(call: Call) -> TracedValue:
    """Return steps that are taken out; samples are taken whole."""
    tensor, traced = call.taken
    if call.name == "select":
        place = call.argument(1, "dim") % tensor.dim()
        wanted: tuple[Any, ...] = (*(slice(None),) * place, call.argument(2, "index"))
    elif call.name == "narrow":
        place, start = call.argument(1, "dim") % tensor.dim(), call.argument(2, "start")
        wanted = (*(slice(None),) * place, slice(start, start + call.argument(3, "length")))
    else:
        wanted = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    wanted = _in_full(wanted, tensor.dim())
    at = [place for place, item in enumerate(wanted) if item != slice(None)]
    if len(at) == 1 and isinstance(wanted[at[0]], slice) and isinstance(traced, Signal) and at[0] != traced.axes.time:
        return _part(call, tensor, traced, at[0], wanted[at[0]], call.out)
    axes, values, place = traced.axes, _values(traced), 0
    for item in wanted:
        if item is None:
            axes, place = axes.inserted(place), place + 1
        elif isinstance(item, slice):
            axes, values = _sliced(axes, values, place, item)
            place += 1
        else:
            values = _taken(axes, values, place, item)
            axes = axes.without(place)
    return replace(traced, axes=axes, values=values) if isinstance(traced, Signal) else replace(traced, axes=axes)


def _in_full(wanted: tuple[Any, ...], axes: int) -> tuple[Any, ...]:
    """Return indices with whole axes in place of an ellipsis."""
    if not any(item is Ellipsis for item in wanted):
        return wanted
    place = next(place for place, item in enumerate(wanted) if item is Ellipsis)
    named = sum(item is not None and item is not Ellipsis for item in wanted)
    return (*wanted[:place], *(slice(None),) * (axes - named), *wanted[place + 1 :])


def _values(traced: Signal | TimeReduction) -> tuple[StepValue, ...]:
    return traced.values if isinstance(traced, Signal) else ()


def _sliced(axes: Axes, values: tuple[StepValue, ...], place: int, item: slice) -> tuple[Axes, tuple[StepValue, ...]]:
    size = axes.size(place)
    if item.indices(size) == (0, size, 1):
        return axes, values
    if place != axes.time:
        raise UnsupportedAxes("takes a part of a sample or of the batch, which has no node")
    kept = values[item]
    return axes.without(place).inserted(place, (AxisPart(AxisKind.TIME, len(kept)),)), kept


def _taken(axes: Axes, values: tuple[StepValue, ...], place: int, item: Any) -> tuple[StepValue, ...]:
    if (isinstance(item, Tensor) and item.dim()) or isinstance(item, bool | Sequence):
        raise Unsupported("takes values by a list of indices, which has no node")
    if place == axes.time and values:
        return (values[int(item)],)
    if axes.axes[place]:
        raise UnsupportedAxes("takes one value out of a sample or of the batch, which has no node")
    return values


def unbind(call: Call) -> Sequence[TracedValue]:
    """Return each step."""
    tensor, traced = call.signal
    place = call.argument(1, "dim", 0) % tensor.dim()
    values = [_taken(traced.axes, traced.values, place, item) for item in range(tensor.shape[place])]
    return [Signal(traced.axes.without(place), value) for value in values]


def split(call: Call) -> Sequence[TracedValue]:
    """Return parts of the steps."""
    tensor, traced = call.signal
    place = call.argument(2, "dim", 0) % tensor.dim()
    parts, start = [], 0
    for part in call.out:
        kept = slice(start, start := start + part.shape[place])
        if place == traced.axes.time:
            parts.append(Signal(*_sliced(traced.axes, traced.values, place, kept)))
        else:
            parts.append(_part(call, tensor, traced, place, kept, part))
    return parts


def _part(call: Call, tensor: Tensor, signal: Signal, place: int, kept: slice, part: Tensor) -> Signal:
    """Return a part of each sample along one of its axes, which comes first meanwhile."""
    first = len(signal.axes.leading)
    if place < first or kept.step not in (None, 1):
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
    if place == axes.time:
        return _joined(signals, axes, place)
    if axes.axes[place] or axes.timed:
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
    sample = signals[0].axes.without(place) if axes.time is not None else signals[0].axes
    others = [signal.axes.without(place) if axes.time is not None else signal.axes for signal in signals]
    if any(other != sample for other in others):
        raise Unsupported("joins steps of different axes, which has no node")
    time: Axis = (AxisPart(AxisKind.TIME, len(values)),)
    return Signal(axes.without(place).inserted(place, time), values)


def write(call: Call) -> TracedValue:
    """Return a tensor of which one step more is written, as in `out[step] = spikes`."""
    target, wanted, source = call.args
    signal = call.traced(source)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    places = [place for place, item in enumerate(wanted) if not isinstance(item, slice)]
    whole = all(item == slice(None) for item in wanted if isinstance(item, slice))
    if not isinstance(signal, Signal) or len(places) != 1 or not whole or Ellipsis in wanted or signal.axes.timed:
        raise Unsupported("writes to a part of a tensor that is not a step, which has no node")
    place, size = places[0], target.shape[places[0]]
    step = int(wanted[place]) % size
    held = call.traced(target)
    axes = signal.axes.inserted(place, (AxisPart(AxisKind.TIME, size),))
    values = [UNWRITTEN] * size
    if isinstance(held, Signal):
        if held.axes != axes:
            raise Unsupported("writes steps over what is not steps, which has no node")
        values = list(held.values)
    values[step] = signal.values[0]
    return Signal(axes, tuple(values))


def reduce(call: Call) -> TracedValue:
    """Reduce time by a sum, mean or maximum, or the whole of a sample's axes, as a pool."""
    tensor, traced = call.taken
    over = {"sum": Reduction.SUM, "mean": Reduction.MEAN, "max": Reduction.MAX, "amax": Reduction.MAX}[call.name]
    given = call.argument(1, "dim")
    if isinstance(given, Tensor):
        raise Unsupported("takes the greater of two values, which has no node")
    places = sorted(
        place % tensor.dim() for place in ((given,) if isinstance(given, int) else given or range(tensor.dim()))
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
    module, name = (means, "average_pool") if over is Reduction.MEAN else (SumPool(kernel), "sum_pool")
    shown = (
        call.out
        if keep
        else call.out.reshape([1 if place in places else size for place, size in enumerate(tensor.shape)])
    )
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
    pools = {Reduction.SUM: SumPool((size,)), Reduction.MEAN: nn.AvgPool1d(size), Reduction.MAX: nn.MaxPool1d(size)}
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
    **dict.fromkeys(("__getitem__", "select", "narrow"), index),
    **dict.fromkeys(("sum", "mean", "max", "amax"), reduce),
    "stack": stack,
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "__setitem__": write,
}
SEVERAL = {"unbind": unbind, "__iter__": unbind, "split": split, "chunk": split}
