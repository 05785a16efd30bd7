"""Kernels that are compiled once for each rule of a neuron, and kept on disk like the event engine's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba

from spikeserve.models.engines.event.compiled import inner
from spikeserve.training.fit.operators.derivation import Rule


class Kernel:
    """A compiled function that runs without the interpreter's lock; it may take a rule as its first argument.

    Numba looks at the types of all arguments at each call, which takes longer than a small layer does. Ours are always
    the same but for the rule: once a rule's code is compiled, `of` returns it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.dispatcher: Any = inner(function)
        self.entries: dict[Rule | None, Callable[..., Any]] = {}
        self.lock = threading.Lock()

    def of(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """Return the code for these arguments, compiled at the first ones of their rule."""
        rule = arguments[0] if arguments and isinstance(arguments[0], Rule) else None
        if rule not in self.entries:
            with self.lock:
                signature = tuple(numba.typeof(argument) for argument in arguments)
                self.dispatcher.compile(signature)
                self.entries[rule] = self.dispatcher.get_overload(signature)
        return self.entries[rule]

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        return self.of(arguments)(*arguments)


kernel = Kernel
