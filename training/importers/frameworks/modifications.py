"""Whether a module was modified from outside, and whether running a network modifies it.

A rule converts a class. A function that was put on one instance, or on the class itself, a hook, and a method that a
subclass overrides all change what a module computes, and no rule sees them.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from spikeserve.training.errors import NotConvertible

# Functions that an author hands to a neuron, and that the rules compare with what a node computes.
COMPARED_BY_RULES = frozenset({"spike_grad", "element_wise_function", "spike_fn", "reset_fn", "surrogate_grad_fn"})
INSTEAD = "write a module of your own, whose forward says what it computes"
SHOWING = frozenset({"__init__", "extra_repr", "__repr__"})  # methods that do not change what a module computes


def overrides(kind: type[Any]) -> bool:
    """Return whether a class defines more than how it is constructed and shown."""
    return any(
        (callable(held) or hasattr(held, "__get__")) and name not in SHOWING
        for name, held in vars(kind).items()
        if name not in ("__dict__", "__weakref__")
    )


def base_of(kind: type[Any], known: Callable[[type[Any]], bool]) -> type[Any] | None:
    """Return the nearest known class that `kind` only constructs otherwise; None where it overrides a method."""
    while not known(kind):
        if len(kind.__bases__) != 1 or overrides(kind):
            return None
        (kind,) = kind.__bases__
    return kind


def changes(module: nn.Module, *, alone: bool = False) -> list[str]:
    """Return a sentence for each change that was made to a module, or unless `alone` to one that it holds."""
    return [
        f"{f'its {path}' if path else 'it'} {change}"
        for path, part in ([("", module)] if alone else module.named_modules())
        for change in (*_hooks(part), *_replaced(part), *_foreign(part), *_patched(type(part)))
    ]


def global_hooks() -> list[str]:
    """Return a sentence where PyTorch runs a hook at every module's call."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return ["PyTorch has a forward hook for all modules, which may change what they compute: remove it"]
    return []


def _hooks(module: nn.Module) -> Iterator[str]:
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    if hooks:
        pruned = any(type(hook).__module__ == "torch.nn.utils.prune" for hook in hooks)
        cure = "torch.nn.utils.prune.remove makes its weights plain" if pruned else "remove it"
        yield f"has a forward hook, which may change what it computes: {cure}"
    if getattr(module, "_compiled_call_impl", None) is not None:
        yield "was compiled in place: leave the call of compile out of what your factory returns"


def _replaced(module: nn.Module) -> Iterator[str]:
    """Say which methods of its class an instance hides by attributes of its own."""
    for name, held in vars(module).items():
        method = inspect.getattr_static(type(module), name, None)
        if callable(held) and (callable(method) or hasattr(method, "__get__")):
            yield f"has its own {name}{_place(held)}, which replaces that of {type(module).__name__}: {INSTEAD}"


def _foreign(module: nn.Module) -> Iterator[str]:
    """Say which functions that a module keeps as attributes are not those of the library that wrote its forward."""
    library = next(_root(kind) for kind in type(module).__mro__ if "forward" in vars(kind))
    for name, held in vars(module).items():
        if not isinstance(held, FunctionType | MethodType | partial) or name in COMPARED_BY_RULES:
            continue
        owner = getattr(held, "__self__", module)
        of_another = isinstance(owner, nn.Module) and owner is not module
        hides_a_method = inspect.getattr_static(type(module), name, None) is not None  # said already
        if not hides_a_method and (of_another or _root(held) not in (library, "torch")):
            yield f"has its own {name}{_place(held)}, which is not the {library} module's: {INSTEAD}"


def _patched(kind: type[nn.Module]) -> Iterator[str]:
    """Say which methods of a class are not its library's."""
    for owner in kind.__mro__:
        for name, held in vars(owner).items():
            method = getattr(held, "__func__", getattr(held, "fget", held))
            if isinstance(method, FunctionType) and _root(method) not in (_root(owner), "torch"):
                yield f"has its own {name}{_place(method)}, which replaces that of {owner.__name__}: {INSTEAD}"


def _root(held: Any) -> str:
    """Return the package that defines a class or function."""
    held = held.func if isinstance(held, partial) else getattr(held, "__func__", held)
    return str(getattr(held, "__module__", None) or "torch").partition(".")[0]


def _place(function: Any) -> str:
    """Return where a function is written, in brackets."""
    code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
    return f" ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else ""


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
def require_unchanged(network: nn.Module) -> Iterator[None]:
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
