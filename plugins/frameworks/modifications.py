"""Whether a module was modified from outside, and whether running a network modifies it.

A rule converts a class. A function that was put on one instance, or on the class itself, a hook, and a method that a
subclass overrides all change what a module computes, and no rule sees them.
"""

from __future__ import annotations

import hashlib
import inspect
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType, ModuleType
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
        (callable(attribute) or hasattr(attribute, "__get__")) and name not in SHOWING
        for name, attribute in vars(kind).items()
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
        for change in _changes(part)
    ]


def global_hooks() -> list[str]:
    """Return a sentence where PyTorch runs a hook at every module's call."""
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return ["PyTorch has a forward hook for all modules, which may change what they compute: remove it"]
    return []


def _changes(module: nn.Module) -> Iterator[str]:
    """Say which hooks a module has, and which functions of it and of its class are not those of its library."""
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    if hooks:
        pruned = any(type(hook).__module__ == "torch.nn.utils.prune" for hook in hooks)
        cure = "torch.nn.utils.prune.remove makes its weights plain" if pruned else "remove it"
        yield f"has a forward hook, which may change what it computes: {cure}"
    if getattr(module, "_compiled_call_impl", None) is not None:
        yield "was compiled in place: leave the call of compile out of what your factory returns"
    kind = type(module)
    library = next(_root(each) for each in kind.__mro__ if "forward" in vars(each))
    own = [name for name, attribute in vars(module).items() if _replaces(module, name, attribute, library)]
    for owner in kind.__mro__:
        for name, attribute in vars(owner).items():
            method = getattr(attribute, "__func__", getattr(attribute, "fget", attribute))
            if isinstance(method, FunctionType) and _root(method) not in (_root(owner), "torch"):
                own.append(name)
    yield from (f"has its own {name}, which is not the {library} module's: {INSTEAD}" for name in own)


def _replaces(module: nn.Module, name: str, attribute: Any, library: str) -> bool:
    """Return whether an attribute hides a method of its module's class, or is another's function."""
    method = inspect.getattr_static(type(module), name, None)
    if callable(attribute) and (callable(method) or hasattr(method, "__get__")):
        return True
    if not isinstance(attribute, FunctionType | MethodType | partial) or name in COMPARED_BY_RULES:
        return False
    owner = getattr(attribute, "__self__", module)
    return (isinstance(owner, nn.Module) and owner is not module) or _root(attribute) not in (library, "torch")


def _root(definition: Any) -> str:
    """Return the package that defines a class or function."""
    definition = definition.func if isinstance(definition, partial) else getattr(definition, "__func__", definition)
    return str(getattr(definition, "__module__", None) or "torch").partition(".")[0]


PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, range, slice)
REGISTERED = ("_parameters", "_buffers", "_modules", "_memories")  # whose entries an author names as attributes
CURE = "a served network computes the same for the same input: leave that out of what your factory returns"


@contextmanager
def require_unchanged(network: nn.Module) -> Iterator[None]:
    """Raise NotConvertible where what is run within draws at random, or changes what the network holds."""
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
    """Return all values that hang on a network's attributes, by where they are."""
    result: dict[str, Any] = {}
    visited: dict[int, Any] = {}  # by id; held, so that no id is given twice
    waiting: list[tuple[str, Any]] = [("", network)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, PLAIN):
            result[path] = repr(value)
        elif isinstance(value, Tensor | np.ndarray | np.generic):
            result[path] = digest(value)
        elif id(value) not in visited and not isinstance(value, type | ModuleType):
            visited[id(value)] = value
            waiting += [(f"{path}.{name}" if path else name, part) for name, part in _parts(value)]
    return result


def _parts(container: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(container, Mapping):
        yield from ((str(key), value) for key, value in container.items())
    elif isinstance(container, list | tuple | deque | set | frozenset):
        yield "its length", len(container)
        yield from ((str(place), value) for place, value in enumerate(container))
    for name, value in getattr(container, "__dict__", {}).items():
        if name in REGISTERED and isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def _random_states() -> dict[str, Any]:
    return {
        "PyTorch": digest(torch.get_rng_state()),
        "Python": hash(random.getstate()),
        "NumPy": repr(np.random.get_state()),  # noqa: NPY002  (that of code which uses it)
    }


def digest(values: Any) -> tuple[Any, ...]:
    """Return a key of values, by their shape, type and bytes."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().to_dense().numpy()
    values = np.ascontiguousarray(values)
    return values.shape, str(values.dtype), hashlib.sha256(values.tobytes()).hexdigest()
