"""The exceptions of this package, as one tree; each message is a sentence.

SpikeserveError
├── InvalidSpec        a network that cannot run, or tensors that do not fit it
├── InvalidInput       a sample, seed or number of steps that the model cannot run
├── InvalidBundle      a bundle that is damaged, incomplete or does not reproduce its golden samples
├── BundleNotFound     a model or version that is not in the repository
├── EngineUnavailable  an engine that is not installed, lacks its device or cannot run this network
└── Stopped            a run that ended early, as nobody waits for its answer any more
"""

from __future__ import annotations

from pathlib import Path

HEAD, TAIL = 400, 150  # characters of a longer sentence that are kept


class SpikeserveError(Exception):
    """The base class of all exceptions of this project."""


class InvalidSpec(SpikeserveError, ValueError):
    """A network that cannot run; the message names the node and both values."""


class InvalidInput(SpikeserveError, ValueError):
    """An input that the model cannot run; the message names the field, the value and what was expected."""


class InvalidBundle(SpikeserveError):
    """A damaged or incomplete bundle; the message names the file or the sample.

    It is one line of bounded length, whatever names and values the bundle puts into it.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(bounded_line(sentence))


class BundleNotFound(SpikeserveError, LookupError):
    """A model or version that is not in the repository."""


class EngineUnavailable(SpikeserveError):
    """An engine that is not installed, lacks its device or cannot run this network."""


class Stopped(SpikeserveError):
    """A run that ended early because it was asked to, see `models.engines.stop`."""


def bounded_line(sentence: str) -> str:
    """Return a sentence that holds somebody else's words as one line of bounded length, without control characters."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence)
    return line if len(line) <= HEAD + TAIL else f"{line[:HEAD]} … {line[-TAIL:]}"


def install(extra: str) -> str:
    """Return the command that installs an extra: a checkout is no package of an index, and pip takes its folder."""
    root = Path(__file__).resolve().parents[1]
    project = f"-e '{root}" if (root / "pyproject.toml").is_file() else "'spikeserve"
    return f"pip install {project}[{extra}]'"
