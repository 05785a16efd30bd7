"""How much a NIR file may ask for, and a process that holds itself to it."""

from __future__ import annotations

import math
import sys

from training.errors import InvalidGraph

MOST_BYTES = 2**31  # of the file, and of what it unfolds to
MOST_NODES = 5_000
MOST_EDGES = 20_000
MOST_VALUES = 2**26  # of a layer, or of a recurrent connection that an edge stands for
MOST_CLASSES = 2**20
DEEPEST = 32
MOST_SECONDS = 30.0
MOST_MEMORY = 2 * MOST_BYTES  # bytes of addresses; the interpreter and its libraries need some 300 MB of them


def require_size(what: str, shape: tuple[int, ...]) -> None:
    """Raise InvalidGraph where a layer of that shape would have too many values; a file can ask for them in a word."""
    if math.prod(shape) > MOST_VALUES:
        sizes = "×".join(str(size) for size in shape)
        raise InvalidGraph(f"{what} has shape {sizes}, expected at most {MOST_VALUES:,} values")


def limit_this_process() -> None:
    """Bound this process's memory and processor time, and let it leave no core file; does nothing where not on Linux.

    Whoever waits for this process gives up first; should that one be killed, this one ends all the same.
    """
    if sys.platform != "linux":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, MOST_MEMORY),
        (resource.RLIMIT_CPU, int(MOST_SECONDS) + 1),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
