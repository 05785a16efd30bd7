"""Servers that begin as forks of one process, which has imported the service: sooner than a new Python does."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["tests.warm"])
SERVICE = ("-m", "spikeserve.service")


class Fork:
    """A process that runs the service, or code that a test has for it; a test uses it as a `subprocess.Popen`."""

    def __init__(self, program: Sequence[str], arguments: Sequence[str]) -> None:
        (output, its_output), (error, its_error) = (FORKS.Pipe(duplex=False) for _ in range(2))
        hangups = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        own = (program, arguments, dict(os.environ), hangups, its_output, its_error)
        self.process = FORKS.Process(target=_run, args=own, daemon=True)
        self.process.start()
        self.pid = self.process.pid or 0
        self.status: int | None = None
        its_output.close()
        its_error.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(end.fileno()), encoding="utf-8") for end in (output, error))

    def poll(self) -> int | None:
        """Return its exit status, if it has ended."""
        self.status = self.process.exitcode if self.status is None else self.status
        return self.status

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status once it has ended."""
        if self.poll() is None:
            self.process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired("the service", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the fork server has waited for it, and has yet to report its status
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()
        self.wait()
        self.process.close()


def own_descriptors() -> set[int]:
    """Return the descriptors of this process that its forks are made with, which stay."""
    ends = (forkserver._forkserver._forkserver_alive_fd, resource_tracker._resource_tracker._fd)  # type: ignore[attr-defined]
    return {end for end in ends if end is not None}


def _run(
    program: Sequence[str],
    arguments: Sequence[str],
    environment: Mapping[str, str],
    hangups: bool,
    output: "Connection[Any, Any]",
    error: "Connection[Any, Any]",
) -> None:
    """Become what `python *program *arguments` would be in this environment, with pipes for its output."""
    for end, number in ((output, 1), (error, 2)):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGHUP, signal.SIG_IGN if hangups else signal.SIG_DFL)
    if tuple(program) == SERVICE:
        from spikeserve.service.__main__ import main

        sys.exit(main(arguments))
    sys.argv = ["-c", *program[2:], *arguments]
    exec(compile(program[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
