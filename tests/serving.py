"""A service for the tests of any package: an app that serves a repository, or a process of its own."""

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from queue import Queue
from threading import Thread
from time import monotonic
from typing import Any
from urllib.request import urlopen

import pytest

from spikeserve.models.door import FOLDER, LET_IN
from spikeserve.service.app import create_app
from spikeserve.service.settings import Settings
from tests.forks import SERVICE, Fork
from tests.inside import Inside

with warnings.catch_warnings():  # Starlette would rather have httpx2, and says so at import
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

ROOT = Path(__file__).parents[1]
GIVEN_BACK_SECONDS = 60.0  # until a server has seen that its last clients have left
ASK_SECONDS = 5.0  # for its metrics; a test may have stopped it
HELD = ["spikeserve_queue_depth", "spikeserve_http_requests_in_flight", "spikeserve_reserved_bytes"]


@contextmanager
def serving(root: Path | str, *, wait: bool = True, **settings: Any) -> Iterator[TestClient]:
    """Serve the models in `root`, all of them loaded or failed unless `wait` is off."""
    with TestClient(create_app(Settings(repository=root, **settings))) as client:
        while wait and "is still loading" in client.get("/health/ready").text:
            assert client.portal is not None
            client.portal.call(Inside(client.app).loader.loads_over)
        yield client


class Process:
    """`python -m spikeserve.service` on a free port of the loopback, with what it has logged so far.

    Its log is read as it comes, by a thread: a server whose output nobody reads would stop at a full pipe.
    """

    def __init__(self, process: subprocess.Popen[str] | Fork) -> None:
        self.process = process
        self.url = ""
        self.entries: list[dict[str, Any]] = []
        self._incoming: Queue[str | None] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._incoming.put(line)
        self._incoming.put(None)

    def wait_for(self, *events: str) -> dict[str, Any]:
        """Read the log up to the next entry whose event begins as one of `events`; its end instead is a failure."""
        while (line := self._incoming.get(timeout=200)) is not None:
            self.entries.append(json.loads(line))
            if self.entries[-1]["event"].startswith(events):
                return self.entries[-1]
        pytest.fail(f"the service ended before {events}: {self.process.stderr and self.process.stderr.read()}")

    def wait_for_each(self, *events: str) -> dict[str, dict[str, Any]]:
        """Read the log up to an entry of each event, in whatever order they come, and return those."""
        entries: dict[str, dict[str, Any]] = {}
        while left := [event for event in events if event not in entries]:
            entry = self.wait_for(*left)
            entries[entry["event"]] = entry
        return entries

    def gives_back(self) -> None:
        """Fail if it goes on to hold what requests took, where it still runs and lets anybody read its metrics."""
        held, deadline = {"": 1.0}, monotonic() + GIVEN_BACK_SECONDS
        while self.process.poll() is None and any(held.values()):
            try:
                with urlopen(f"{self.url}/metrics", timeout=ASK_SECONDS) as answer:  # noqa: S310  (its own)
                    text = answer.read().decode()
            except (OSError, HTTPException):  # it needs a key, or is about to end
                return
            held = {
                name: sum(map(float, re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))) for name in HELD
            }
            held["spikeserve_http_requests_in_flight"] -= 1  # this one
            if monotonic() > deadline and any(held.values()):
                pytest.fail(f"the service holds {held} although nobody asks it for anything")

    def stop(self) -> int:
        """Ask it to end, read the rest of its log and return its exit status."""
        self.process.terminate()
        return self.ended()

    def read_out(self) -> None:
        """Wait until its log has come to its end: what is still read must not be closed."""
        self._reader.join(timeout=60)

    def ended(self) -> int:
        """Wait until it and all that it started have closed their log; return its exit status."""
        while (line := self._incoming.get(timeout=60)) is not None:
            self.entries.append(json.loads(line))
        return self.process.wait(timeout=60)


def _started(program: Sequence[str], arguments: Sequence[str], *, is_new: bool) -> subprocess.Popen[str] | Fork:
    is_known = program == SERVICE or program[0] == "-c"
    if is_known and not is_new and not {FOLDER, LET_IN} & os.environ.keys():  # which say what plugins there are
        return Fork(program, arguments)
    command, pipe = [sys.executable, *program, *arguments], subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def running(
    root: Path | str, *flags: str, ready: int = 1, program: Sequence[str] = SERVICE, is_new: bool = False
) -> Iterator[Process]:
    """Run the service, or a Python program like it, as a process; go on once it listens and has `ready` models.

    It is a fork of one that has imported the service, unless it has to be a new Python.
    """
    with _started(program, ["--port", "0", "--repository", str(root), *flags], is_new=is_new) as process:
        service = Process(process)
        try:
            listening = service.wait_for("listening")
            service.url = f"http://{listening['host']}:{listening['port']}"
            for _ in range(ready):
                service.wait_for("model_ready")
            yield service
            service.gives_back()
        finally:
            if process.poll() is None:
                process.kill()
            service.read_out()
