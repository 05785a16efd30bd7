"""Processes for work that may never end, or may end its process: how they start, what bounds them, and how they end.

`call` runs one function in an interpreter of its own. It is not multiprocessing's: that would import the caller's
`__main__` in the child, so that a script without a guard runs itself again, and unpickle in this process what the child
answers, which after a hostile file may be anything. Here both directions are JSON and NumPy's own format.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from spikeserve.models.errors import SpikeserveError

INHERITED = ("HOME", "LANG", "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ", "VIRTUAL_ENV")
INHERITED_PREFIXES = ("DYLD_", "LC_", "LD_", "OMP_", "PYTHON")
PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that a process gets when the thread that forked it has ended


class NoAnswer(Exception):
    """A process that ended without an answer; the message says how."""


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this project in an interpreter of its own."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment for it: it finds what this process finds, wherever that was started.

    NumPy's threads would only reserve memory, and a process that has threads is not forked safely.
    """
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Limits:
    """What a process may take: seconds, by the clock and of a core, and bytes of addresses, its libraries' included."""

    seconds: float
    memory: int


def call(function: Callable[..., Any], *arguments: Any, limits: Limits, refused: type[SpikeserveError]) -> Any:
    """Call a function in a new Python process, within limits, and return its answer.

    Arguments and answer may be None, numbers, text, bytes and NumPy arrays, in dictionaries with text as keys, lists
    and data classes; a tuple arrives as a list, and a data class as a dictionary of its fields. The process inherits no
    file and of the environment only what it needs to start (INHERITED), so no key. It costs 0.1 s and the function's
    imports.

    Raises `refused` with the sentence of any SpikeserveError that the function raises, MemoryError, TimeoutError once
    it has run for `limits.seconds`, and NoAnswer where the process ends otherwise.
    """
    given = BytesIO()
    given.write(json.dumps(asdict(limits)).encode() + b"\n")
    _write([function.__module__, function.__name__, *arguments], given)
    own = {name: value for name, value in environment().items() if _is_inherited(name)}
    with answered(__name__, seconds=limits.seconds, given=given.getvalue(), env=own) as stream:
        try:
            answer = dict(_read(stream))
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise NoAnswer("it wrote no answer that can be read") from error
    if "refused" in answer:
        raise refused(answer["refused"])
    if "returned" not in answer:
        raise MemoryError
    return answer["returned"]


def _is_inherited(name: str) -> bool:
    return name in INHERITED or name == "OPENBLAS_NUM_THREADS" or name.startswith(INHERITED_PREFIXES)


def _serve() -> None:
    """Answer the call that comes by the standard input, behind a line of its limits."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    given = BytesIO(sys.stdin.buffer.read())
    limits = json.loads(given.readline())
    limit_this_process(limits["memory"], limits["seconds"])
    answer: dict[str, Any]
    try:
        module, name, *arguments = _read(given)
        answer = {"returned": getattr(importlib.import_module(module), name)(*arguments)}
    except SpikeserveError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {}
    with stream:
        _write(answer, stream)


def _write(value: Any, stream: IO[bytes]) -> None:
    """Write a line of JSON, in which arrays and bytes are numbers, then each of them in NumPy's own format."""
    arrays: list[Any] = []

    def packed(value: Any) -> Any:
        if is_dataclass(value) or isinstance(value, Mapping):
            fields = value if isinstance(value, Mapping) else vars(value)
            return {"fields": {key: packed(part) for key, part in fields.items()}}
        if isinstance(value, list | tuple):
            return [packed(part) for part in value]
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, bytes):
            arrays.append(np.frombuffer(value, np.uint8))
            return {"bytes": len(arrays) - 1}
        if np.asarray(value).dtype == object:
            return {"objects": value.tolist()}
        arrays.append(np.asarray(value))
        return {"array": len(arrays) - 1}

    stream.write(json.dumps(packed(value)).encode() + b"\n")
    for array in arrays:
        npy.write_array(stream, array, allow_pickle=False)


def _read(stream: IO[bytes]) -> Any:
    """Read what `_write` wrote; the arrays come in the order in which the line names them."""

    def unpacked(value: Any) -> Any:
        if isinstance(value, list):
            return [unpacked(part) for part in value]
        if not isinstance(value, dict):
            return value
        ((kind, held),) = value.items()
        if kind == "fields":
            return {key: unpacked(part) for key, part in held.items()}
        if kind == "objects":
            return np.array(held, object)
        array = npy.read_array(stream, allow_pickle=False)
        return array.tobytes() if kind == "bytes" else array[()]

    return unpacked(json.loads(stream.readline()))


@contextmanager
def answered(
    module: str, *arguments: str, seconds: float, given: bytes = b"", env: Mapping[str, str] | None = None
) -> Iterator[IO[bytes]]:
    """Run a module, which is given bytes as its standard input, and yield a file of what it answers.

    What it writes to its standard output goes by way of a temporary file, which takes as much room as that. Raises
    TimeoutError once it has run for so many seconds, and NoAnswer where it ends with another status than 0.
    """
    with tempfile.TemporaryFile() as answer:
        try:
            ended = subprocess.run(  # noqa: S603
                command(module, *arguments),
                env=environment() if env is None else env,
                input=given,
                stdout=answer,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace").splitlines()[-1:]
            raise NoAnswer(": ".join([f"exit status {ended.returncode}", *said]))
        answer.seek(0)
        yield answer


def limit_this_process(memory: int, seconds: float) -> None:
    """Bound this process's addresses, in bytes, and its processor time; does nothing where not on Linux.

    It also leaves no core file, and if the machine runs out of memory, the kernel ends it before any other process. The
    process that waits for its answer has a limit of its own; the one here ends it if that process is gone.
    """
    if sys.platform != "linux":
        return
    import resource

    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def end_with_parent(parent: int) -> None:
    """Have this process killed once its parent, whose process id is given, has ended; does nothing where not on Linux.

    The parent must have one thread only: the kernel watches the thread that forked.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told to watch it
        os._exit(1)


if __name__ == "__main__":
    _serve()
