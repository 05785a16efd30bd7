"""Whether a forward computes the same again: it draws nothing at random, and changes nothing that it reads.

A served network is what a forward computed once. One that counts its calls, or changes a weight or an attribute on the
way, would have computed something else the next time.
"""

from __future__ import annotations

import hashlib
import random
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.training.errors import NotConvertible

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, range, slice)
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
NOT_THEIRS = {*sys.stdlib_module_names, "models", "service", "spikeserve", "training"}
GENERATORS: Mapping[type[Any], Callable[[Any], Any]] = {
    torch.Generator: lambda held: held.get_state(),
    random.Random: lambda held: held.getstate(),
    np.random.Generator: lambda held: held.bit_generator.state,
    np.random.RandomState: lambda held: held.get_state(),
}
REGISTERED = ("_parameters", "_buffers", "_modules", "_memories")  # whose entries an author names as attributes
CURE = "a served network computes the same for the same input: leave that out of what your factory returns"


@contextmanager
def required(network: nn.Module) -> Iterator[None]:
    """Raise NotConvertible where what is run within draws at random, or changes the network or what its code reads."""
    before, drawn = contents(network), _random_states()
    yield
    if source := next((name for name, state in _random_states().items() if state != drawn[name]), None):
        raise NotConvertible(f"its forward draws {source}'s random numbers, and {CURE}")
    after = contents(network)
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if changed:
        named = ", ".join(f"'{path}'" for path in changed[:3])
        raise NotConvertible(f"its forward changes {named} each time it runs, and {CURE}")


def contents(network: nn.Module) -> dict[str, Any]:
    """Return all values that a network holds, or that its author's code reads, by where they are."""
    walk = _Walk()
    walk.visit("", network)
    return walk.found


def _random_states() -> dict[str, Any]:
    return {
        "PyTorch": _digest(torch.get_rng_state().numpy()),
        "Python": hash(random.getstate()),
        "NumPy": repr(np.random.get_state()),  # noqa: NPY002  (that of code which uses it)
    }


class _Walk:
    """One walk over whatever hangs on a network."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self._visited: dict[int, Any] = {}  # by id; held, so that no id is given twice

    def visit(self, path: str, held: Any) -> None:
        """Note the values of one object, and of those that it holds."""
        if isinstance(held, PLAIN):
            self.found[path] = repr(held)
            return
        if id(held) in self._visited or isinstance(held, ModuleType):
            return
        self._visited[id(held)] = held
        if isinstance(held, Tensor) and held.layout is not torch.strided:
            self.found[path] = repr(held)
        elif isinstance(held, Tensor | np.ndarray | np.generic):
            values = (
                held.detach().cpu().numpy() if isinstance(held, Tensor) and not held.is_sparse else np.asarray(held)
            )
            self.found[path] = (values.shape, str(values.dtype), _digest(values))
        elif read := next((read for kind, read in GENERATORS.items() if isinstance(held, kind)), None):
            self.found[path] = repr(read(held))
        else:
            for name, part in self._parts(held):
                self.visit(f"{path}.{name}" if path else name, part)

    def _parts(self, held: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(held, Mapping):
            yield from ((str(key), value) for key, value in [*held.items()])
        elif isinstance(held, list | tuple | deque | set | frozenset):
            yield "its length", len(held)
            yield from ((str(place), value) for place, value in enumerate(held))
        elif isinstance(held, MethodType):
            yield from (("self", held.__self__), ("function", held.__func__))
        elif isinstance(held, FunctionType):
            yield from self._of_function(held) if _is_own(held) else ()
        elif isinstance(held, type):
            yield from self._of_class(held) if _is_own(held) else ()
        elif isinstance(held, GeneratorType):
            frame = held.gi_frame
            yield "place", frame and frame.f_lasti
            yield from (frame.f_locals.items() if frame else ())
        elif hasattr(held, "__next__"):
            yield from self._of_iterator(held)
        else:
            yield from self._of_object(held)

    def _of_object(self, held: Any) -> Iterator[tuple[str, Any]]:
        for name, value in [*getattr(held, "__dict__", {}).items()]:
            if name in REGISTERED and isinstance(value, dict):
                yield from value.items()
            else:
                yield name, value
        for kind in type(held).__mro__:
            if _is_own(kind):
                yield kind.__name__, kind

    def _of_class(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        for name, value in [*vars(kind).items()]:
            value = getattr(value, "fget", getattr(value, "__func__", value))
            if not name.startswith("__") or isinstance(value, FunctionType):
                yield name, value

    def _of_function(self, function: FunctionType) -> Iterator[tuple[str, Any]]:
        yield from ((str(place), value) for place, value in enumerate(function.__defaults__ or ()))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with _nothing_in_it():
                yield name, cell.cell_contents
        read = _names(function.__code__)
        yield from ((name, value) for name, value in [*function.__globals__.items()] if name in read)

    @staticmethod
    def _of_iterator(held: Any) -> Iterator[tuple[str, Any]]:
        with warnings.catch_warnings(), _nothing_in_it():
            warnings.simplefilter("ignore")  # that a later Python will not say where an iterator stands
            yield "state", held.__reduce__()[1:]


def _is_own(code: Any) -> bool:
    """Return whether a class or function is the author's, and no library's."""
    name = str(getattr(code, "__module__", None) or "builtins")
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return name.partition(".")[0] not in NOT_THEIRS and not file.startswith(LIBRARIES)


@contextmanager
def _nothing_in_it() -> Iterator[None]:
    """Pass over a cell that is empty, and an iterator that does not show its state."""
    try:
        yield
    except (ValueError, TypeError, AttributeError):
        return


def _names(code: CodeType) -> set[str]:
    """Return the names that a function and those within it read."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)


def _digest(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
