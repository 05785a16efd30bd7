"""The processes in which versions are verified before this process loads them, as this process sees them.

One fork server (`service.catalog.fork_server`) makes them all. It starts with the first version that is to be loaded
and ends once none has been for a while: it takes some 200 MB, and a second to start again.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import json
import os
import select
import subprocess
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from threading import Lock, Thread
from typing import IO, Any, cast

from spikeserve.models.isolated import command, environment
from spikeserve.service.catalog.engine_choice import chosen
from spikeserve.service.catalog.loaded import Verified
from spikeserve.service.errors import LoadFailed
from spikeserve.service.settings import Settings

IDLE_SECONDS = 10.0
AT_ONCE = 8  # versions that the fork server is given at the same time; so the pipe to it always has room
NEEDED = {"repository", "engine", "device", "max_time_steps", "load_seconds", "max_model_bytes", "max_load_operations"}


class LoadProcesses:
    """Verifies versions in processes of their own, for one loader."""

    def __init__(self, settings: Settings) -> None:
        self.engine = chosen(settings)
        self.settings = settings.model_dump(mode="json", include=NEEDED)
        self.settings["repository"] = str(settings.folder.absolute())
        self.places = asyncio.Semaphore(AT_ONCE)

    async def verify(self, name: str, version: int) -> Verified:
        """Verify a version; where this is cancelled, its process is killed.

        Raises LoadFailed with a sentence for anything that the bundle did, RuntimeError with a traceback for a fault of
        ours.
        """
        async with self.places:
            request = {"name": name, "version": version, "settings": self.settings}
            try:
                answer = await asyncio.wrap_future(_submit(self.engine, request))
            except OSError as error:
                raise LoadFailed(f"the process that loads models cannot be started: {error.strerror}") from error
        if "refused" in answer:
            raise LoadFailed(answer["refused"])
        if "fault" in answer:
            raise RuntimeError(answer["fault"])
        return Verified.model_validate(answer["verified"])


class Server:
    """A running fork server. Its thread reads the answers, and ends the server when it has been idle.

    Raises OSError where the system lets no process or thread start.
    """

    def __init__(self, engine: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603
            command("spikeserve.service.catalog.fork_server", engine),
            env=environment(),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a signal to the group of this process must not end loads
        )
        self.requests, self.answers = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        self.lock = Lock()
        self.numbers = count(1)
        self.awaited: dict[int, Future[dict[str, Any]]] = {}
        self.open = True
        self.reader = Thread(target=self._read, name="loads", daemon=True)
        try:
            self.reader.start()
        except RuntimeError as error:
            self.process.kill()
            self.process.wait()
            raise OSError(errno.EAGAIN, "the system lets no other thread start") from error

    def submit(self, request: dict[str, Any]) -> Future[dict[str, Any]] | None:
        """Send a request and return the future of its answer, or None if the server has ended or is about to.

        Cancelling the future stops the load.
        """
        answer: Future[dict[str, Any]] = Future()
        with self.lock:
            if not self.open:
                return None
            number = next(self.numbers)
            try:
                self._send({"number": number, **request})
            except BrokenPipeError:  # it has just ended
                return None
            self.awaited[number] = answer
        answer.add_done_callback(lambda _: self._forget(number))
        return answer

    def _forget(self, number: int) -> None:
        with self.lock:
            if self.awaited.pop(number, None) and self.open:  # it was not answered: somebody cancelled it
                with suppress(OSError):  # the server has ended
                    self._send({"cancel": number})

    def _send(self, message: dict[str, Any]) -> None:
        self.requests.write(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        """Deliver answers until the server has ended."""
        descriptor, read = self.answers.fileno(), b""
        while True:
            if not select.select([descriptor], [], [], IDLE_SECONDS)[0]:
                self.close(if_idle=True)
                continue
            if not (found := os.read(descriptor, 2**16)):
                break
            *lines, read = (read + found).split(b"\n")
            for line in map(json.loads, lines):
                with self.lock:
                    answer = self.awaited.pop(line["number"], None)
                if answer is not None and answer.set_running_or_notify_cancel():
                    answer.set_result(line["answer"])
        self.close()
        self.answers.close()
        self.process.wait()
        while self.awaited:
            with self.lock:
                _, answer = self.awaited.popitem()
            if answer.set_running_or_notify_cancel():
                answer.set_exception(LoadFailed("the process that loads models has ended, and this load with it"))

    def close(self, *, if_idle: bool = False) -> None:
        """Let the server end, which kills what it still loads; with `if_idle` only if it loads nothing."""
        with self.lock:
            if self.open and not (if_idle and self.awaited):
                self.open = False
                self.requests.close()


_servers: dict[str, Server] = {}  # by engine: one process may hold several apps, as tests do
_starting = Lock()


def _submit(engine: str, request: dict[str, Any]) -> Future[dict[str, Any]]:
    """Send a request to the fork server of an engine, which is started if none is there; raises OSError."""
    with _starting:
        while True:
            server = _servers.get(engine) or Server(engine)
            _servers[engine] = server
            if (answer := server.submit(request)) is not None:
                return answer
            del _servers[engine]


@atexit.register
def _close_all() -> None:
    for server in _servers.values():
        server.close()
        server.process.kill()  # it may be compiling kernels; what it forked ends with it
        server.process.wait()
