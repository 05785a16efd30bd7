"""Processes for work that may never end, or may end its process: how they start, what bounds them, and how they end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

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


@contextmanager
def answered(module: str, *arguments: str, seconds: float, given: bytes = b"") -> Iterator[IO[bytes]]:
    """Run a module, which is given bytes as its standard input, and yield a file of what it answers.

    What it writes to its standard output goes by way of a temporary file, which takes as much room as that. Raises
    TimeoutError once it has run for so many seconds, and NoAnswer where it ends with another status than 0.
    """
    with tempfile.TemporaryFile() as answer:
        try:
            ended = subprocess.run(  # noqa: S603
                command(module, *arguments),
                env=environment(),
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
