"""Which operands of a forward are states: constants in its first step that hang on the input in a later one.

A state begins as a tensor or number of the author's own and is then what the step before left. So the same operand of
the same line is a constant at first and depends on the input later. One run finds these operands, by where they stand.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

TORCH = str(Path(torch.__file__).parent)
OURS = str(Path(__file__).parent)
# What reads a tensor's shape or kind and not its values, and what makes a new tensor like it.
NEUTRAL = frozenset(
    (
        *("shape", "dtype", "device", "ndim", "requires_grad", "is_cuda", "layout", "grad", "grad_fn", "is_leaf"),
        *("is_sparse", "is_quantized", "is_meta", "itemsize", "nbytes", "size", "dim", "numel", "nelement", "__len__"),
        *("stride", "is_contiguous", "is_floating_point", "is_complex", "get_device", "element_size", "ndimension"),
        *("storage_offset", "data_ptr", "zeros_like", "ones_like", "empty_like", "full_like", "new_zeros"),
        *("new_ones", "new_empty", "new_full", "new_tensor", "__hash__", "requires_grad_", "rand_like", "randn_like"),
        *("randint_like", "retain_grad", "register_hook", "_version", "is_signed", "is_same_size"),
    )
)
RANDOM = frozenset(
    (
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "poisson"),
        *("normal", "uniform", "multinomial", "binomial", "exponential", "random"),
    )
)
# A function, and its other names: of its operator, and those that PyTorch keeps for who knows NumPy.
NAMES = (
    "add iadd radd",
    "sub isub subtract",
    "mul imul rmul multiply",
    "div truediv itruediv divide true_divide",
    "rdiv rtruediv",
    "matmul imatmul",
    "neg negative",
    "abs absolute",
    "gt greater",
    "ge greater_equal",
    "lt less",
    "le less_equal",
    "ne not_equal",
    "logical_not bitwise_not invert",
    "logical_and bitwise_and and",
    "logical_or bitwise_or or",
    "logical_xor bitwise_xor xor",
    "clamp clip",
    "trunc fix",
    "transpose swapaxes swapdims",
    "detach data",
    "movedim moveaxis",
)
ALIASES = {other: name for name, *others in map(str.split, NAMES) for other in others}
COMMUTING = ("add", "mul")

Site = tuple[Any, ...]


def running_frames() -> Iterator[FrameType]:
    """Yield the frames that run now, from the innermost on, up to the run of the network."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code not in RUNS:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def site() -> Site:
    """Return where the author's code stands: each of its frames, and the instruction that runs there."""
    own = (frame for frame in running_frames() if not frame.f_code.co_filename.startswith((TORCH, OURS)))
    return tuple((frame.f_code, frame.f_lasti) for frame in own)


def name_of(func: Any) -> str:
    """Return a function's name as rules have it: `__iadd__` and `add_` are `add`, `multiply` is `mul`."""
    name: str = func.__name__
    if name == "__get__":
        name = getattr(func.__self__, "__name__", name)
    if name in ("__getitem__", "__setitem__", "__iter__", "__len__", "__hash__", "_version"):
        return name
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
    elif name.endswith("_") and not name.startswith("_") and name != "requires_grad_":
        name = name[:-1]
    return ALIASES.get(name, name)


def operands(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, dict[int | str, Any]]:
    """Return a function's name and its arguments, those of a list one by one, by place or name.

    The number in a sum or product has the key `number`, on whichever side it stands: a state that begins as 0 is a
    number at first, and of `0.0 + x` and `x + 0.0` PyTorch shows the same.
    """
    name = name_of(func)
    positional = [*args[0], *args[1:]] if args and isinstance(args[0], list | tuple) else [*args]
    if name == "rsub":  # `1 - x` is x.__rsub__(1)
        name = "sub"
        positional[:2] = positional[1::-1]
    elif name == "where" and func is Tensor.where and len(positional) > 1:
        positional[:2] = positional[1::-1]
    arguments: dict[int | str, Any] = {**dict(enumerate(positional))}
    if name in COMMUTING and len(positional) == 2 and any(isinstance(value, int | float) for value in positional):
        tensor, plain = sorted(positional, key=lambda value: isinstance(value, int | float))
        arguments = {"tensor": tensor, "number": plain}
    arguments.update(kwargs.items())
    return name, arguments


class StateFinder(TorchFunctionMode):
    """A run that finds the states: operands that are constants first, and later depend on the input."""

    def __init__(self) -> None:
        super().__init__()
        self._constant: set[tuple[Site, int | str]] = set()
        self.dependent: set[tuple[Site, int | str]] = set()

    def run(self, network: nn.Module, source: Tensor, **beside: int) -> None:
        """Run a network on an input."""
        source._follows = self  # type: ignore[attr-defined]
        with torch.no_grad(), self:
            network(source, **beside)

    @property
    def states(self) -> frozenset[tuple[Site, int | str]]:
        """The operands that were constants once, and depended on the input at another time."""
        return frozenset(self._constant & self.dependent)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch and note what its operands depend on."""
        kwargs = kwargs or {}
        name, arguments = operands(func, args, kwargs)
        follows = {key: self.follows(value) for key, value in arguments.items()}
        depends, where = any(follows.values()), site()
        for key, follow in follows.items():
            (self.dependent if follow else self._constant).add((where, key))
        if depends and name in COMMUTING and "number" not in arguments:
            self.dependent.add((where, "number"))
        out = func(*args, **kwargs)
        if depends and name not in NEUTRAL:
            for tensor in tensors(args[0] if func.__name__ == "__setitem__" else out):
                tensor._follows = self  # type: ignore[attr-defined]
        return out

    def follows(self, value: Any) -> bool:
        """Return whether a value depends on the input."""
        if isinstance(value, list | tuple):
            return any(self.follows(item) for item in value)
        return getattr(value, "_follows", None) is self


class NothingRandom(TorchFunctionMode):
    """A run in which whatever is drawn at random is 0 instead."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, or return zeros where it draws at random."""
        if func.__name__.removesuffix("_") not in RANDOM:
            return func(*args, **(kwargs or {}))
        with torch.random.fork_rng(devices=[]):
            drawn = func(*args, **(kwargs or {}))
        return drawn.zero_() if isinstance(drawn, Tensor) else drawn


def tensors(nested: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(nested, Tensor):
        return [nested]
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        return [tensor for item in nested for tensor in tensors(item)]
    return []


RUNS = {StateFinder.run.__code__}  # where the author's frames end
# Code that calls a function of torch or the author's: an error in its own frame is that function's.
CALL_AUTHORS = {*RUNS, StateFinder.__torch_function__.__code__, NothingRandom.__torch_function__.__code__}
