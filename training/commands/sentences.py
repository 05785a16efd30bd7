"""The sentence about an error for its user, where the error is no fault of the code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from spikeserve.models.errors import SpikeserveError
from spikeserve.training.errors import NotConvertible

MOST = 2000  # characters of a sentence; it may quote a value of any length


def run(app: Callable[[Sequence[str] | None], object], arguments: Sequence[str] | None) -> None:
    """Run a command line, and exit with 1 and a sentence for a user's mistake."""
    try:
        app(arguments)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(1)


def sentence_of(error: Exception) -> str | None:
    """Return the sentence about an error, None for one that only a fault of the code can raise."""
    if isinstance(error, SpikeserveError):
        return _shown(str(error), breaks="\n" if isinstance(error, NotConvertible) else "")  # a line for each module
    if _is_of_memory(error):
        return (
            "memory: there is not enough for this command, expected more of it, or smaller layers, batches, time steps "
            "or data"
        )
    if isinstance(error, OSError):
        where = "a file" if error.filename is None else f"'{error.filename}'"
        return _shown(f"{where}: cannot be read or written: {error.strerror or error}")
    return None


def _is_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; PyTorch raises a plain RuntimeError where it is the CPU's."""
    on_device = "torch" in sys.modules and isinstance(error, sys.modules["torch"].OutOfMemoryError)
    return isinstance(error, MemoryError) or on_device or "DefaultCPUAllocator" in str(error)


def printable(text: str, breaks: str = "") -> str:
    """Return a text that cannot control a terminal: what is not printable, except `breaks`, is written as an escape."""
    return "".join(each if each.isprintable() or each in breaks else ascii(each)[1:-1] for each in text)


def _shown(sentence: str, breaks: str = "") -> str:
    """Return a sentence that fits on a screen and cannot control it, whatever it quotes."""
    plain = printable(sentence, breaks)
    return plain if len(plain) <= MOST else f"{plain[: MOST - 500]} … {plain[-500:]}"
