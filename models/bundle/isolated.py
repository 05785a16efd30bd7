"""Processes for work that may never end, or may end its process: how they start, and how they end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux' prctl: the signal that a process gets when the thread that forked it has ended


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this project in an interpreter of its own."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Return the environment for it: it finds what this process finds, wherever that was started.

    NumPy's threads would only reserve memory, and a process that has threads is not forked safely.
    """
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}


def end_with_parent(parent: int) -> None:
    """Have this process killed once its parent, whose process id is given, has ended; does nothing where not on Linux.

    The parent must have one thread only: the kernel watches the thread that forked.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was told to watch it
        os._exit(1)
