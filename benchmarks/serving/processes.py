"""Servers as processes: started, waited for, held still while another one is measured, and ended with all their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.processor import of_group, resident_megabytes, seconds

ROOT = Path(__file__).parents[2]
START_SECONDS = 120
STOP_SECONDS = 15


@dataclass(frozen=True)
class Server:
    """A server that runs: where it answers, its process (which leads a group) and the seconds from start to ready."""

    url: str
    process: subprocess.Popen[bytes]
    ready_seconds: float

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run meanwhile, and no longer: a server that waits must not take a core from the one measured."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)

    @property
    def resident_megabytes(self) -> float:
        """The memory that it and its children hold, shared pages counted for each."""
        return resident_megabytes(of_group(self.process.pid))

    @property
    def cpu_seconds(self) -> float:
        """The processor time that it and its children have used, in user mode and in the kernel."""
        return sum(seconds(of_group(self.process.pid)).values())


@contextmanager
def running(command: Sequence[str], port: int, log: IO[str], path: str, body: bytes | None = None) -> Iterator[Server]:
    """Run a command until `path` answers on `port`, and hold it still from then on; end it with all its children.

    The path is asked with GET, or with the body where there is one. Raises RuntimeError with the end of the log where
    the command does not start.
    """
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        while not _answers(url + path, body):
            if process.poll() is not None or time.perf_counter() - began > START_SECONDS:
                log.seek(0)
                said = "".join(log.readlines()[-3:]).strip()
                raise RuntimeError(f"{' '.join(command[:3])} did not start: {said}")
            time.sleep(0.005)
        server = Server(url, process, time.perf_counter() - began)
        os.killpg(process.pid, signal.SIGSTOP)
        yield server
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, asked first."""
    for number in (signal.SIGTERM, signal.SIGCONT):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: bytes | None = None) -> bytes:
    """Return the answer of `url`, posted to where there is a body. Raises OSError where it refuses or is not there."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())


def _answers(url: str, body: bytes | None) -> bool:
    try:
        ask(url, body)
    except OSError:
        return False
    return True
