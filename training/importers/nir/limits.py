"""How much a NIR file may ask for, and a process that holds itself to it."""

from __future__ import annotations

import sys

MAX_BYTES = 2**31  # of the file, and of what it unfolds to
MAX_NODES = 5_000
MAX_EDGES = 20_000
MAX_DEPTH = 32
MAX_SECONDS = 30.0
MAX_MEMORY = 2 * MAX_BYTES  # bytes of addresses; the interpreter and its libraries need some 300 MB of them


def limit_this_process() -> None:
    """Bound this process's memory and processor time, and let it leave no core file; does nothing where not on Linux.

    The parent process stops waiting before these bounds are reached. They end this process if the parent was killed.
    """
    if sys.platform != "linux":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, int(MAX_SECONDS) + 1),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
