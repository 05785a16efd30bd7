"""How much a NIR file may ask for, and the process that reads it."""

from __future__ import annotations

MAX_BYTES = 2**31  # of the file, and of what it unfolds to
MAX_NODES = 5_000
MAX_EDGES = 20_000
MAX_DEPTH = 32
MAX_SECONDS = 30.0
MAX_MEMORY = 2 * MAX_BYTES  # bytes of addresses; the interpreter and its libraries need some 300 MB of them
