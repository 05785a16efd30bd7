"""Whether a module computes what its class says, or was changed from outside.

A rule converts a class. A function that was put on one instance, or on the class itself, a hook, and a method that a
subclass overrides all change what a module computes, and no rule sees them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

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
