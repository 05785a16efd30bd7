"""Kernels that are compiled at their first call, and kept on disk like the event engine's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba

from spikeserve.models.engines.event.compiled import inner


class Kernel:
    """A compiled function that runs without the interpreter's lock, always with arguments of the same types.

    Numba looks at the types of all arguments at each call, which takes longer than a small layer does.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.dispatcher: Any = inner(function, called=True)
        self.entry: Callable[..., Any] | None = None
        self.lock = threading.Lock()

    def of(self, arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """Find the code, compiled at the first arguments."""
        with self.lock:
            if self.entry is None:
                signature = tuple(numba.typeof(argument) for argument in arguments)
                self.dispatcher.compile(signature)
                self.entry = self.dispatcher.get_overload(signature)
            return self.entry

    def __call__(self, *arguments: Any) -> Any:
        """Run it."""
        return (self.entry or self.of(arguments))(*arguments)


kernel = Kernel
