"""Long answers are made and sent in pieces, so that no step of it holds the interpreter for long.

An answer of at most SHORT_BYTES is made at once. A longer one is made on a thread: each piece is one call that takes
well under a millisecond, and between two of them other threads, the event loop above all, may take the interpreter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from spikeserve.service.inference.decoding.interpreter import before_piece

Pieces: TypeAlias = list[bytes]

SHORT_BYTES = 2**16  # the size of an answer that is made at once, on the event loop
PIECE_BYTES = 2**16  # a piece is sent once it has so many
PIECE_VALUES = 2**12  # numbers that one call turns into JSON, in some 0.2 ms


def as_list(array: NDArray[Any]) -> list[Any]:
    """Return an array as a list, as short JSON holds it."""
    values: list[Any] = array.tolist()
    return values


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
