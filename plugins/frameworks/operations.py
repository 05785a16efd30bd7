"""What each function of torch does to traced tensors: to their axes, their steps, or as a node.

A function that a module of torch computes too becomes that module, so that each is converted in one place. A function
without a rule makes its result unknown, which is refused, by its name and the author's line, if the answer needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import resolve_name

from spikeserve.plugins.frameworks import arithmetic, over_time
from spikeserve.plugins.frameworks.elementwise import AllStepsAtOnce, completed, elementwise_call, neuron_of_all_steps
from spikeserve.plugins.frameworks.modifications import digest
from spikeserve.plugins.frameworks.nouns import (
    OWN,
    Call,
    Node,
    Rule,
    Signal,
    TimeReduction,
    TracedValue,
    Unsupported,
    UnsupportedValue,
)
from spikeserve.plugins.frameworks.own_neurons import concatenated_linear, concatenated_state
from spikeserve.plugins.frameworks.state_finder import CALL_AUTHORS, NEUTRAL, RANDOM, name_of, tensors
from spikeserve.plugins.frameworks.terms import JOINED
from spikeserve.training.errors import NotConvertible

if TYPE_CHECKING:
    from spikeserve.plugins.frameworks.tracer import Tracer


RANDOM_HINT = (
    "and the same input has to give the same answer: leave it out of what your factory returns (with --coding rate, "
    "spikes are drawn from what a client sends)"
)
READ_HINT = "leave that line out of what your factory returns"


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    """Make the Linear of a function's weights."""
    return _with_weights(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


def convolution(kind: type[Any]) -> Callable[..., nn.Module]:
    """Return the maker of a convolution from a function's weights."""

    def make(weight: Tensor, bias: Tensor | None = None, **along: Any) -> nn.Module:
        channels, kernel = weight.shape[1] * along.get("groups", 1), tuple(weight.shape[2:])
        return _with_weights(kind(channels, weight.shape[0], kernel, bias=bias is not None, **along), weight, bias)

    return make


def _with_weights(module: Any, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
    if weight is not None:
        module.weight.data = weight.detach()
    if bias is not None:
        module.bias.data = bias.detach()
    made: nn.Module = module.eval().requires_grad_(False)
    return made


def batch_norm(
    running_mean: Tensor | None,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,  # noqa: ARG001
    eps: float = 1e-5,
) -> nn.Module:
    """Make the batch norm of a function's statistics."""
    if training or running_mean is None:
        raise Unsupported("takes each batch's own statistics, which has no node")
    module = nn.BatchNorm2d(len(running_mean), eps=eps, affine=weight is not None)
    module.running_mean, module.running_var = running_mean.detach(), running_var.detach()
    return _with_weights(module, weight, bias)


def upsample(size: Any = None, scale_factor: Any = None, mode: str = "nearest", **_: Any) -> nn.Module:
    """Make the module of an interpolation."""
    return nn.Upsample(size, scale_factor, mode)


def zero_pad(pad: Any, mode: str = "constant", value: float | None = None) -> nn.Module:
    """Make the module of a padding of a sample's last axes."""
    if mode != "constant":
        raise Unsupported(f"pads in mode '{mode}', expected zeros")
    kind = nn.ConstantPad1d if len(pad) <= 2 else nn.ConstantPad2d
    return kind(tuple(pad), value or 0.0)


WINDOW = ("kernel_size", "stride", "padding")
LARGEST = (*WINDOW, "dilation", "ceil_mode", "return_indices")
MEANS = (*WINDOW, "ceil_mode", "count_include_pad")
WEIGHTS = ("weight", "bias", "stride", "padding", "dilation", "groups")
STATISTICS = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
# Functions that a module computes: their parameters after the input, and the maker of the module from them.
MODULES: dict[str, tuple[tuple[str, ...], Callable[..., nn.Module]]] = {
    "max_pool2d": (LARGEST, nn.MaxPool2d),
    "avg_pool2d": ((*MEANS, "divisor_override"), nn.AvgPool2d),
    "max_pool1d": (LARGEST, nn.MaxPool1d),
    "avg_pool1d": (MEANS, nn.AvgPool1d),
    "adaptive_avg_pool2d": (("output_size",), nn.AdaptiveAvgPool2d),
    "adaptive_max_pool2d": (("output_size",), nn.AdaptiveMaxPool2d),
    "adaptive_avg_pool1d": (("output_size",), nn.AdaptiveAvgPool1d),
    "interpolate": (("size", "scale_factor", "mode"), upsample),
    "pad": (("pad", "mode", "value"), zero_pad),
    "lp_pool2d": (("norm_type", "kernel_size", "stride", "ceil_mode"), nn.LPPool2d),
    "linear": (WEIGHTS[:2], linear),
    "conv1d": (WEIGHTS, convolution(nn.Conv1d)),
    "conv2d": (WEIGHTS, convolution(nn.Conv2d)),
    "batch_norm": (STATISTICS, batch_norm),
}
ACTIVATIONS = ("gelu", "silu", "mish", "elu", "celu", "selu", "leakyrelu", "prelu", "rrelu", "hardswish", "softplus")
RULES: dict[str, Rule] = {**over_time.VIEWS, **over_time.RULES, **arithmetic.RULES}
IN_EVALUATION = frozenset({"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"})


def trace_function(tracer: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function of torch, and return its result, marked with its traced value."""
    name = name_of(func)
    taken = [*tensors(args), *tensors(kwargs)]
    before = {id(tensor): mark for tensor in taken if (mark := tracer.traced(tensor)) is not None}
    where = tracer.line()
    what = f"{tracer.place()}: {resolve_name(func) or func.__name__}"
    call, why, beside = None, None, None
    try:
        beside = concatenated_state(tracer, func, args, kwargs)
        call = elementwise_call(tracer, func, args, kwargs)
    except Unsupported as error:
        why = error
    if (call is None or call.plain) and name not in NEUTRAL:
        before |= {id(tensor): mark for tensor in taken if (mark := _node_output(tracer, tensor, name)) is not None}
    arguments = args
    if before and func.__name__.endswith("_") and args and isinstance(args[0], Tensor):
        arguments = (args[0].clone(), *args[1:])  # what is written to in place, as it was before
        before |= {id(arguments[0]): before[id(args[0])]} if id(args[0]) in before else {}
    out = func(*args, **kwargs)
    if out is NotImplemented:  # a comparison with None or a string, which Python answers by identity
        return out
    if name == "linear" and (parts := tracer.term(args[0])) is not None and parts.operation == JOINED:
        beside = concatenated_linear(tracer, parts, args[1], [*args, kwargs.get("bias"), None][2], "linear")
    if beside is not None:
        tracer.mark(out, UnsupportedValue(OWN))
        tracer.hold(out, beside)
        return out
    if name in RANDOM:
        for tensor in tensors(out):
            tracer.mark(tensor, UnsupportedValue(f"{what} draws at random, {RANDOM_HINT}", random=True))
        return out
    if (not before and call is None) or name in NEUTRAL:
        return out
    if isinstance(out, bool | int | float | list) or name in ("numpy", "__array__", "item", "tolist"):
        hint = READ_HINT if tracer.most_calls else f"{READ_HINT}, or the encoder that it is part of"
        raise NotConvertible(f"{what} reads values of the network into Python, which no graph can say: {hint}")
    if isinstance(out, Tensor) and out.is_complex():
        sentence = "computes in complex numbers, expected the real and the imaginary part as two states"
        tracer.mark(out, UnsupportedValue(f"{what} {sentence}"))
        return out
    unknown = next((mark for mark in before.values() if isinstance(mark, UnsupportedValue)), None)
    known = {key: mark for key, mark in before.items() if not isinstance(mark, UnsupportedValue)}
    if name == "__setitem__":
        out = args[0]
    try:
        if isinstance(why, AllStepsAtOnce):
            traced_values: list[TracedValue] = [neuron_of_all_steps(tracer, func, args, kwargs, out)]
        elif why is not None and unknown is not None and (unknown.random or unknown.sentence == OWN):
            raise why
        elif unknown is not None or not known:
            traced_values = [unknown or UnsupportedValue(OWN)] * len(tensors(out))
        else:
            traced_values = _traced_values(Call(tracer, func, name, arguments, kwargs, known, out, where))
    except Unsupported as error:
        cause = error if why is None or isinstance(why, AllStepsAtOnce) else why
        traced_values = [UnsupportedValue(f"{what} {cause}", error.refusal)] * len(tensors(out))
    rest = UnsupportedValue(
        f"{what} gives more than one thing, of which only the first has a node"
    )  # indices of a maximum
    for result, traced in zip_longest(tensors(out), traced_values, fillvalue=rest):
        if isinstance(result, Tensor) and not isinstance(traced, Tensor):
            tracer.mark(result, traced)
    if call is not None:
        try:
            tracer.hold(out, completed(call, out))
        except Unsupported as error:
            if not call.plain:
                tracer.mark(out, UnsupportedValue(f"{what} {error}", error.refusal))
    return None if name == "__setitem__" else out


CALL_AUTHORS.add(trace_function.__code__)


def _node_output(tracer: Tracer, tensor: Tensor, name: str) -> TracedValue | None:
    """Return a tensor's value for a function that is no part of a step: there a term is the output of a neuron."""
    if (term := tracer.term(tensor)) is not None and term.operation == JOINED:
        return UnsupportedValue(f"{tracer.line()}: joins its input with a state, which only a Linear may take")
    return tracer.node_output(tensor, is_read=name in ("softmax", "log_softmax", "sigmoid", "argmax"))


def _traced_values(call: Call) -> list[TracedValue]:
    name = call.name
    if name in over_time.STRIDED:
        return over_time.strided(call)
    if name in IN_EVALUATION:
        if call.argument(2, "training", True):
            raise Unsupported("drops values at random though the network is evaluated")
        return [call.taken[1]]
    if name in MODULES:
        return [_as_module(call, *call.taken)]
    if name not in RULES:
        raise Unsupported(f"has no node{cure_of(name)}")
    traced = RULES[name](call)
    if isinstance(traced, Signal) and traced.state is not None and name not in over_time.VIEWS:
        traced = Signal(traced.axes, traced.values)
    return [traced]


def _as_module(call: Call, tensor: Tensor, traced: Signal | TimeReduction) -> Signal | TimeReduction:
    if any(call.traced(other) is not None for other in tensors([call.args[1:], call.kwargs]) if other is not tensor):
        raise Unsupported("takes weights that depend on the input, which has no node")
    settings = [
        digest(value) if isinstance(value, Tensor) else repr(value)  # a forward may compute the same at each call
        for value in (*call.args[1:], *(call.kwargs[name] for name in sorted(call.kwargs)))
        if value is not tensor
    ]
    names, make = MODULES[call.name]
    arguments = dict(zip(names, call.args[1:], strict=False))
    module = make(**arguments | {name: value for name, value in call.kwargs.items() if name != "input"})
    key = (call.name, *settings)
    return call.tracer.stateless(key, lambda: Node(call.name, module, where=call.where), traced, tensor, call.out)


def cure_of(name: str) -> str:
    """Return the advice for an activation without a node, such as GELU, and an empty string for other functions."""
    return "; train the network with ReLU in its place" if name.lower().replace("_", "") in ACTIVATIONS else ""
