"""A trained network of an ONNX file as modules of PyTorch, which are then traced as any other network's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data
from torch import Tensor, nn

from spikeserve.models.errors import InvalidBundle
from spikeserve.plugins.frameworks.entry import first_line
from spikeserve.training.errors import NotConvertible
from spikeserve.training.files import read_bytes

MAX_BYTES = 2**29  # of a file; the limit of protobuf is four times as much
Attributes = Mapping[str, Any]
Made = nn.Module | Callable[..., Tensor]
CONVOLUTIONS: Mapping[int, Any] = {3: nn.Conv1d, 4: nn.Conv2d}
AVERAGES: Mapping[int, Any] = {1: nn.AvgPool1d, 2: nn.AvgPool2d}
MAXIMA: Mapping[int, Any] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
DAMAGED = (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class _Unsupported(Exception):
    """A node that has no module, and why."""


class OnnxNetwork(nn.Module):
    """The nodes of a graph in order, each a module by the node's name or a function; it runs as its file says."""

    def __init__(self, graph: Any) -> None:
        super().__init__()
        if outside := next((each.name for each in graph.initializer if uses_external_data(each)), None):
            raise InvalidBundle(f"it keeps '{outside}' in another file, expected all inside (external_data=False)")
        constants = {each.name: torch.tensor(numpy_helper.to_array(each)) for each in graph.initializer}
        inputs = [each.name for each in graph.input if each.name not in constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise InvalidBundle(f"it has {len(inputs)} inputs and {len(graph.output)} outputs, expected one of each")
        self.entry, self.answer = inputs[0], graph.output[0].name
        self.steps: list[tuple[Made, tuple[str, ...], str]] = []
        refusals = list[str]()
        for place, node in enumerate(graph.node):
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                constants[node.output[0]] = torch.tensor(numpy_helper.to_array(attributes["value"]))
                continue
            constant_inputs = [constants.get(name) for name in node.input]
            values = tuple(name for name in node.input if name and name not in constants)
            try:
                made = OPERATORS.get(node.op_type, _unknown)(attributes, constant_inputs)
            except _Unsupported as error:
                refusals.append(f"'{node.name or node.output[0]}' ({node.op_type}): {error}")
                continue
            except DAMAGED as error:
                raise InvalidBundle(
                    f"its node '{node.name}' ({node.op_type}) is damaged: {first_line(error)}"
                ) from error
            if isinstance(made, nn.Module):
                self.add_module(re.sub(r"\W", "_", node.name.strip("/")) or f"{node.op_type}_{place}".lower(), made)
            self.steps.append((made, values, node.output[0]))
        if refusals:
            raise NotConvertible.because(refusals)

    def forward(self, x: Tensor) -> Tensor:
        """Return the answer for samples (batch, *shape)."""
        values = {self.entry: x}
        for made, inputs, output in self.steps:
            values[output] = made(*(values[name] for name in inputs))
        return values[self.answer]


def read_onnx(path: Path) -> nn.Module:
    """Read a file; raises InvalidBundle for none, and NotConvertible with a line for each node that has no module."""
    try:
        graph = onnx.ModelProto.FromString(read_bytes(path, MAX_BYTES)).graph
    except OSError as error:
        raise InvalidBundle(f"'{path}' cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise InvalidBundle(f"'{path}' is no ONNX model") from error
    try:
        return OnnxNetwork(graph).eval().requires_grad_(False)
    except (InvalidBundle, ValueError, TypeError, KeyError) as error:
        raise InvalidBundle(f"'{path}' cannot be converted: {error}") from error


def _unknown(*_: object) -> Made:
    raise _Unsupported("no rule converts it")


def _constant(constants: Sequence[Tensor | None], place: int, axes: int | None = None) -> Tensor:
    """Return a constant input, which the node needs."""
    constant = constants[place] if place < len(constants) else None
    if constant is None or (axes is not None and constant.ndim != axes):
        raise _Unsupported(
            f"its input {place + 1} is no constant{'' if axes is None else f' of {axes} axes'} in the file"
        )
    return constant


def _with(module: Any, **tensors: Tensor | None) -> nn.Module:
    """Give a module its tensors, by a copy that checks their shapes."""
    module.load_state_dict({name: each.float() for name, each in tensors.items() if each is not None}, strict=False)
    made: nn.Module = module
    return made


def _optional(constants: Sequence[Tensor | None], place: int) -> Tensor | None:
    return constants[place] if place < len(constants) else None


def _padding(of: Attributes, axes: int) -> Any:
    pads, how = list(of.get("pads", [0] * 2 * axes)), of.get("auto_pad", b"NOTSET").decode()
    if how == "SAME_UPPER" and set(of.get("strides", [1])) == {1}:
        return "same"
    if how not in ("NOTSET", "VALID") or pads[:axes] != pads[axes:]:
        raise _Unsupported(f"its padding {pads} ('{how}') is not the same on both sides")
    return tuple(pads[:axes])


def _convolution(of: Attributes, constants: Sequence[Tensor | None]) -> Made:
    weight, bias, groups = _constant(constants, 1), _optional(constants, 2), of.get("group", 1)
    if weight.ndim not in CONVOLUTIONS:
        raise _Unsupported(f"its weights have {weight.ndim} axes, expected 3 or 4")
    axes = weight.ndim - 2
    ways = {"stride": tuple(of.get("strides", [1] * axes)), "dilation": tuple(of.get("dilations", [1] * axes))}
    made = CONVOLUTIONS[weight.ndim](
        *(weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:])),
        **ways, padding=_padding(of, axes), groups=groups, bias=bias is not None,
    )  # fmt: skip
    return _with(made, weight=weight, bias=bias)


def _linear(of: Attributes, constants: Sequence[Tensor | None]) -> Made:
    weight, bias = _constant(constants, 1, 2), _optional(constants, 2)
    weight = weight * of.get("alpha", 1.0) if of.get("transB", 0) else weight.T * of.get("alpha", 1.0)
    if of.get("transA", 0):
        raise _Unsupported("it transposes its input")
    if bias is not None:
        bias = (bias * of.get("beta", 1.0)).expand(len(weight))
    return _with(nn.Linear(weight.shape[1], len(weight), bias=bias is not None), weight=weight, bias=bias)


def _batch_norm(of: Attributes, constants: Sequence[Tensor | None]) -> Made:
    weight, bias, mean, variance = (_constant(constants, place, 1) for place in range(1, 5))
    made = nn.BatchNorm2d(len(weight), eps=of.get("epsilon", 1e-5))
    return _with(made, weight=weight, bias=bias, running_mean=mean, running_var=variance)


def _pool(kinds: Mapping[int, Any]) -> Callable[[Attributes, Sequence[Tensor | None]], Made]:
    def pool(of: Attributes, _: Sequence[Tensor | None]) -> Made:
        kernel, padding = tuple(of["kernel_shape"]), _padding(of, len(of["kernel_shape"]))
        if padding == "same" or len(kernel) not in kinds or set(of.get("dilations", [1])) != {1}:
            raise _Unsupported("a pool with gaps, of three axes or padded to the same size")
        counts = {"count_include_pad": bool(of.get("count_include_pad", 0))} if kinds is AVERAGES else {}
        stride = tuple(of.get("strides", [1] * len(kernel)))
        made: nn.Module = kinds[len(kernel)](kernel, stride, padding, ceil_mode=bool(of.get("ceil_mode", 0)), **counts)
        return made

    return pool


def _flatten(of: Attributes, constants: Sequence[Tensor | None]) -> Made:
    shape = _optional(constants, 1)
    if of.get("axis", 1) != 1 or (shape is not None and (shape.numel() != 2 or int(shape[0]) not in (0, 1, -1))):
        raise _Unsupported("it does not flatten whole samples")
    return nn.Flatten()


def _clip(of: Attributes, constants: Sequence[Tensor | None]) -> Made:
    low, high = (_optional(constants, place) for place in (1, 2))
    bounds = [of.get(name) if each is None else float(each) for name, each in (("min", low), ("max", high))]
    if bounds[0] != 0 or not bounds[1]:
        raise _Unsupported(f"it clips to {bounds[0]} and {bounds[1]}, expected 0 and more")
    return nn.ReLU6() if bounds[1] == 6 else nn.Hardtanh(0.0, bounds[1])


def _add(_: Attributes, constants: Sequence[Tensor | None]) -> Made:
    constant = next((each for each in constants if each is not None), None)
    if constant is None:
        return torch.add
    return lambda values: values + constant


def _mean(of: Attributes, constants: Sequence[Tensor | None]) -> Made:
    axes = _optional(constants, 1)
    over = sorted(of.get("axes", []) if axes is None else axes.tolist())
    if over not in ([2, 3], [-2, -1]):
        raise _Unsupported(f"its mean is over the axes {over}, expected height and width")
    keep = bool(of.get("keepdims", 1))
    return lambda values: values.mean((2, 3), keepdim=keep)


OPERATORS: Mapping[str, Callable[[Attributes, Sequence[Tensor | None]], Made]] = MappingProxyType(
    {
        "Conv": _convolution,
        "Gemm": _linear,
        "MatMul": _linear,
        "BatchNormalization": _batch_norm,
        "Relu": lambda *_: nn.ReLU(),
        "Clip": _clip,
        "AveragePool": _pool(AVERAGES),
        "MaxPool": _pool(MAXIMA),
        "GlobalAveragePool": lambda *_: nn.AdaptiveAvgPool2d(1),
        "ReduceMean": _mean,
        "Flatten": _flatten,
        "Reshape": _flatten,
        "Add": _add,
        "Dropout": lambda *_: nn.Identity(),
        "Identity": lambda *_: nn.Identity(),
    }
)
