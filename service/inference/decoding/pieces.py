"""Long work in pieces: how the threads that decode and render share Python's interpreter with the event loop.

The event loop gives the interpreter up at every read and write of a socket, and has to get it back from a thread that
decodes a long body or renders a long answer. Two rules keep small requests from waiting for that:

- While there is such work, a thread may keep the interpreter for SHORT_SECONDS after another asks for it. Python's
  5 ms would add up for each request. Without such work a shorter time would only cost switches.
- Such work is done in pieces. Before each, its thread waits a little where the event loop is behind with its own.

An answer of at most SHORT_BYTES is made at once. A longer one is made on a thread: each piece is one call that takes
well under a millisecond, and between two of them other threads, the event loop above all, may take the interpreter.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import perf_counter, sleep
from typing import Any, TypeAlias, TypeVar, TypeVarTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

SHORT_SECONDS = 5e-4
BEHIND_SECONDS = 0.004  # the event loop is behind once it has worked for so long without a look at its sockets
PAUSE_SECONDS = 0.001  # while it is behind, a thread looks again after that
MAX_PAUSES = 3  # before one piece: pieces take about a millisecond, so that the work never has less than a fifth

Arguments = TypeVarTuple("Arguments")
T = TypeVar("T")


class Iteration:
    """When the event loop's iteration that goes on began, on the clock of perf_counter; infinity while none does.

    `files` is how many were ready then, where that is known, and `files_before` in the iteration before it.
    """

    began = math.inf
    files = files_before = 2**31


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
    """Applies both rules to the work that is reported to it. The event loop calls `begin` and `end`, a thread `run`."""

    def __init__(self, iteration: Iteration | None = None) -> None:
        self.iteration = iteration or Iteration()  # of the event loop; where none is known, no thread waits for it
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


Pieces: TypeAlias = list[bytes]

SHORT_BYTES = 2**16  # the size of an answer that is made at once, on the event loop
PIECE_BYTES = 2**16  # the size from which on a piece is sent
PIECE_VALUES = 2**12  # numbers that one call turns into JSON, in some 0.2 ms


def as_array(array: NDArray[Any]) -> list[Any]:
    """Return the array itself in place of a long list; `json_fragments` writes it as one."""
    return cast("list[Any]", array)


def json_fragments(value: object) -> Iterator[bytes]:
    """Yield the JSON of dicts, lists, texts, numbers and arrays, of which any may be long; NaN and infinities are null.

    No fragment is made of more than PIECE_VALUES values.
    """
    if isinstance(value, Mapping):
        yield b"{"
        for index, (name, member) in enumerate(value.items()):
            yield (b"," if index else b"") + to_json(name) + b":"
            yield from json_fragments(member)
        yield b"}"
    elif isinstance(value, np.ndarray | list) and len(value) and isinstance(value[0], np.ndarray | Mapping):
        yield from _listed(map(json_fragments, value))  # rows, or objects
    elif isinstance(value, np.ndarray | list):
        parts = (value[start : start + PIECE_VALUES] for start in range(0, len(value), PIECE_VALUES))
        yield from _listed([_numbers(part)] for part in parts)
    else:
        yield to_json(value, inf_nan_mode="null")


def _numbers(values: Any) -> bytes:
    """Return a slice of a list or of an array of one axis as JSON, without its brackets."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    return to_json(plain, inf_nan_mode="null")[1:-1]


def _listed(items: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    yield b"["
    for index, item in enumerate(items):
        if index:
            yield b","
        yield from item
    yield b"]"


def joined(fragments: Iterable[bytes]) -> Pieces:
    """Return the fragments as pieces of PIECE_BYTES or a little more; the last has what is left."""
    pieces: Pieces = []
    waiting: list[bytes] = []
    size = 0
    before_piece()
    for fragment in fragments:
        waiting.append(fragment)
        size += len(fragment)
        if size >= PIECE_BYTES:
            pieces.append(b"".join(waiting))
            waiting, size = [], 0
            before_piece()
    if waiting or not pieces:
        pieces.append(b"".join(waiting))
    return pieces
