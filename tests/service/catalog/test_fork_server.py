"""The fork server gives back what a load took: a load that is cancelled never begins, and none leaves a pipe behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest

from spikeserve.models.isolated import command, environment
from spikeserve.service.catalog.fork_server import PLACE_SECONDS, SIDE_BY_SIDE, resident
from spikeserve.service.catalog.load_process import NEEDED, LoadProcesses, Server, _servers
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.external import contract, endless
from tests.external import publish as publish_external
from tests.networks import toy
from tests.service.asgi import settled
from tests.service.versions import damage

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="watches processes as Linux shows them")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a model that loads, one that is refused, and one whose load never ends."""
    root = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    publish(root, toy(), "damaged")
    damage(root, 1, "damaged")
    publish_external(root, endless(), contract(), "loops")
    return root


def descriptors(process: int) -> list[str]:
    """Return the numbers of a process's open descriptors."""
    return sorted(path.name for path in Path(f"/proc/{process}/fd").iterdir())


class ForkServer:
    """A running fork server, and the lines that it reads and writes."""

    def __init__(self, process: subprocess.Popen[bytes], models: Path) -> None:
        self.process, self.models = process, models
        self.requests, self.answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)

    def send(self, **message: Any) -> None:
        self.requests.write(json.dumps(message).encode() + b"\n")
        self.requests.flush()

    def verify(self, number: int, name: str, **settings: Any) -> None:
        """Have version 1 of a model verified."""
        chosen = Settings(repository=self.models, engine="onnx", **settings)
        self.send(number=number, name=name, version=1, settings=chosen.model_dump(mode="json", include=NEEDED))

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Return the number of the next answer, and the answer."""
        line = json.loads(self.answers.readline())
        return line["number"], line["answer"]

    def children(self) -> list[str]:
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()

    def descriptors(self) -> int:
        return len(descriptors(self.process.pid))


@pytest.fixture(scope="module")
def fork_server(models: Path) -> Iterator[ForkServer]:
    process = subprocess.Popen(
        command("spikeserve.service.catalog.fork_server", "onnx"),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        yield ForkServer(process, models)
        assert process.stdin is not None
        process.stdin.close()


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.01)  # the kernel tells of processes in no other way


def test_a_load_that_is_cancelled_while_it_waits_for_a_place_never_begins(fork_server: ForkServer) -> None:
    places = range(SIDE_BY_SIDE)
    for number in places:
        fork_server.verify(number, "loops")
    waiting, later = SIDE_BY_SIDE, SIDE_BY_SIDE + 1
    fork_server.verify(waiting, "toy")
    fork_server.send(cancel=waiting)
    for number in places:
        fork_server.send(cancel=number)
    fork_server.verify(later, "toy")
    wait_until(lambda: not fork_server.children())  # all that began, and was not cancelled, has written its answer
    fork_server.verify(later + 1, "toy")
    assert [fork_server.answer()[0] for _ in range(2)] == [later, later + 1]


def test_however_a_load_ends_its_pipe_is_closed(fork_server: ForkServer) -> None:
    fork_server.verify(100, "toy")
    assert "verified" in fork_server.answer()[1]
    before = fork_server.descriptors()
    for number, (name, settings, end) in enumerate(
        [
            ("toy", {}, "verified"),
            ("damaged", {}, "refused"),
            ("loops", {"load_seconds": 0.1}, "refused"),
            ("loops", {}, "cancelled"),
        ],
        start=101,
    ):
        fork_server.verify(number, name, **settings)
        if end == "cancelled":
            wait_until(lambda: len(fork_server.children()) == 1)
            fork_server.send(cancel=number)
        else:
            found, answer = fork_server.answer()
            assert (found, *answer) == (number, end)
        wait_until(lambda: not fork_server.children())
    assert fork_server.descriptors() == before


def test_a_load_is_charged_for_its_own_memory_and_not_for_that_of_the_fork_server(fork_server: ForkServer) -> None:
    # A forked process begins with the pages of the fork server, which are twice what the setting allows and more.
    most = resident(fork_server.process.pid) // 2
    fork_server.verify(200, "loops", load_seconds=0.5, max_model_bytes=most)
    assert fork_server.answer() == (
        200,
        {"refused": "loading it took longer than 0.5 s (load_seconds) and was stopped"},
    )


def test_a_fork_server_that_has_ended_leaves_no_pipe_in_the_process_that_started_it() -> None:
    before = descriptors(os.getpid())
    server = Server("onnx")
    server.close(if_idle=True)
    server.reader.join()
    opened = set(descriptors(os.getpid())) - set(before)
    assert (server.process.returncode, opened) == (0, set())


def test_a_load_holds_its_place_for_five_seconds_and_goes_on_without_it(fork_server: ForkServer) -> None:
    places, began = range(300, 300 + SIDE_BY_SIDE), time.monotonic()
    for number in places:
        fork_server.verify(number, "loops")
    wait_until(lambda: len(fork_server.children()) == SIDE_BY_SIDE)
    fork_server.verify(400, "toy")
    assert fork_server.answer()[0] == 400
    assert time.monotonic() - began > PLACE_SECONDS
    assert len(fork_server.children()) == SIDE_BY_SIDE
    for number in places:
        fork_server.send(cancel=number)
    wait_until(lambda: not fork_server.children())


@pytest.mark.anyio
async def test_no_more_than_eight_loads_go_on_at_once(models: Path) -> None:
    settings = Settings(repository=models, engine="onnx", load_seconds=3600)
    processes = LoadProcesses(settings)
    loads = [asyncio.create_task(processes.verify("loops", 1)) for _ in range(10)]
    server = None
    async with asyncio.timeout(120):
        while server is None or len(server.awaited) < 8:
            await asyncio.sleep(0.01)
            server = _servers.get("onnx")
        await settled()
        assert len(server.awaited) == 8
        loads[0].cancel()  # which gives its room to the next
        await asyncio.wait(loads[:1])
        await settled()
        assert len(server.awaited) == 8
    for load in loads:
        load.cancel()
    await asyncio.wait(loads)
    assert server.awaited == {}
