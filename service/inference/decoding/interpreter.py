"""How the threads that decode and render share Python's interpreter, which runs one thread at a time.

The event loop gives the interpreter up at every read and write of a socket, and has to get it back from a thread that
decodes a long body or renders a long answer. Two rules keep small requests from waiting for that:

- While there is such work, a thread may keep the interpreter for SHORT_SECONDS after another asks for it. Python's
  5 ms would add up for each request. Without such work a shorter time would only cost switches.
- Such work is done in pieces. Before each, its thread waits a little where the event loop is behind with its own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Protocol, TypeVar, TypeVarTuple

SHORT_SECONDS = 5e-4
BEHIND_SECONDS = 0.004  # the event loop is behind once it has worked for so long without a look at its sockets
PAUSE_SECONDS = 0.001  # while it is behind, a thread looks again after that
MAX_PAUSES = 3  # before one piece: pieces take about a millisecond, so that the work never has less than a fifth

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Iteration(Protocol):
    """Tells when the event loop's iteration that goes on began, on the clock of perf_counter; infinity if none does."""

    began: float


_thread = threading.local()


def before_piece() -> None:
    """Wait where the event loop is behind; on a thread that `Interpreter.run` does not use, nothing is waited for.

    A piece should take half a millisecond or more. A thread that often lets go of the interpreter for a moment, as
    NumPy does, takes it again before another thread has woken up; and Python counts each of these as a switch, so that
    the other thread would wait until the whole work is done.
    """
    iteration: Iteration | None = getattr(_thread, "iteration", None)
    if iteration is not None:
        for _ in range(MAX_PAUSES):
            if perf_counter() - iteration.began < BEHIND_SECONDS:
                return
            sleep(PAUSE_SECONDS)


class Interpreter:
    """Applies both rules to the work that it is told of. The event loop calls `begin` and `end`, a thread `run`."""

    def __init__(self) -> None:
        self.iteration: Iteration | None = None  # of the event loop; where none is known, no thread waits for it
        self.works = 0
        self.usual = sys.getswitchinterval()

    def begin(self) -> None:
        """Work begins on a thread that keeps the interpreter."""
        if not self.works:
            self.usual = sys.getswitchinterval()
            sys.setswitchinterval(SHORT_SECONDS)
        self.works += 1

    def end(self) -> None:
        """Work has ended; after the last of it, the time is what it was before the first."""
        self.works -= 1
        if not self.works:
            sys.setswitchinterval(self.usual)

    def run(self, function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Do the work on this thread, which waits between its pieces where the event loop is behind."""
        _thread.iteration = self.iteration
        return function(*arguments)
