"""The processes in which versions are verified: how many go on, what bounds each, and what they leave behind."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from spikeserve.models import isolated
from spikeserve.models.isolated import Limits, NoAnswer, resident
from spikeserve.service.catalog.load_process import AT_ONCE, PLACE_SECONDS, SIDE_BY_SIDE, LoadProcesses
from spikeserve.service.catalog.loaded import Verification
from spikeserve.service.errors import LoadFailed
from spikeserve.service.inference.decoding.readers import prepare
from spikeserve.service.settings import Settings
from tests.bundles import publish, publish_slow, published
from tests.networks import toy
from tests.service.processes import children, until
from tests.service.versions import damage
from tests.serving import ROOT, running

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="watches processes as Linux shows them"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of a model that loads, one that is refused, and one whose load never ends."""
    root = published(tmp_path_factory, toy=toy(), damaged=toy())
    damage(root, 1, "damaged")
    publish_slow(root, "loops")
    return root


def processes(models: Path, **settings: Any) -> LoadProcesses:
    return LoadProcesses(Settings(repository=models, engine="reference", **settings), prepare)


def server_of(processes: LoadProcesses) -> int:
    """Return the process of the fork server, which has started."""
    assert processes.server.running is not None
    return processes.server.running[0]


@asynccontextmanager
async def going_on(processes: LoadProcesses, names: Sequence[str]) -> AsyncIterator[list[asyncio.Task[Verification]]]:
    """Begin loads, and cancel those that still go on in the end, whose processes then end."""
    loads = [asyncio.create_task(processes.verify(name, 1)) for name in names]
    try:
        yield loads
    finally:
        for load in loads:
            load.cancel()
        await asyncio.wait(loads)
        await until(lambda: children(server_of(processes)) == [])


def going(processes: LoadProcesses) -> Callable[[], int]:
    return lambda: len(children(server_of(processes)))


async def test_a_load_holds_its_place_for_five_seconds_and_goes_on_without_it(models: Path) -> None:
    loads = processes(models)
    await loads.verify("toy", 1)  # its server has started
    clock = asyncio.get_running_loop().time
    async with going_on(loads, ["loops"] * SIDE_BY_SIDE + ["damaged", "toy"]) as (*_, cancelled, last):
        began = clock()
        await until(lambda: going(loads)() == SIDE_BY_SIDE)
        cancelled.cancel()  # while it waits for a place: it never begins
        assert (await last).engine == "reference"
        assert clock() - began > PLACE_SECONDS - 1
        await until(lambda: going(loads)() == SIDE_BY_SIDE)


async def test_no_more_than_eight_loads_go_on_at_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spikeserve.service.catalog.load_process.PLACE_SECONDS", 0.0)
    loads = processes(models)
    await loads.verify("toy", 1)
    async with going_on(loads, ["loops"] * (AT_ONCE + 2)) as (first, *_):
        await until(lambda: going(loads)() == AT_ONCE)
        first.cancel()  # which gives its room to the next
        await asyncio.wait([first])
        await until(lambda: going(loads)() == AT_ONCE)
        assert loads.server.calls == AT_ONCE


async def test_however_a_load_ends_it_leaves_no_file_open(models: Path) -> None:
    loads = processes(models)
    await loads.verify("toy", 1)
    before = descriptors(server_of(loads))
    assert (await loads.verify("toy", 1)).engine == "reference"
    for name, settings, sentence in (
        ("damaged", {}, "its sha256 is"),
        ("loops", {"load_seconds": 0.1}, r"^loading it took longer than 0.1 s \(load_seconds\) and was stopped$"),
    ):
        with pytest.raises(LoadFailed, match=sentence):
            await processes(models, **settings).verify(name, 1)
    async with going_on(loads, ["loops"]):
        await until(lambda: going(loads)() == 1)
    await until(lambda: descriptors(server_of(loads)) == before)


async def test_an_answer_that_is_longer_than_any_of_ours_is_not_read(models: Path) -> None:
    with pytest.raises(NoAnswer, match="no answer that can be read"):
        await processes(models).server.call(json.dumps, ["x"] * 2**16, limits=Limits(60, 2**30), refused=LoadFailed)


def endless(*_: object) -> None:
    signal.pause()


async def test_a_load_is_charged_for_its_own_memory_and_not_for_that_of_the_fork_server(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await processes(models).verify("toy", 1)
    # A forked process begins with the pages of the fork server, which are twice what the setting allows and more.
    most = resident(server_of(processes(models))) // 2
    monkeypatch.setattr("spikeserve.service.catalog.load_process.verified", endless)
    with pytest.raises(LoadFailed, match=r"took longer than 0\.5 s"):
        await processes(models, load_seconds=0.5, max_model_bytes=most).verify("loops", 1)


async def test_a_fork_server_ends_once_idle_and_another_follows(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = processes(models)
    await loads.verify("toy", 1)
    process = server_of(loads)
    monkeypatch.setattr(isolated, "IDLE_SECONDS", 0.0)
    await loads.verify("toy", 1)
    await until(lambda: loads.server.running is None)
    assert not Path(f"/proc/{process}").exists()
    assert (await loads.verify("toy", 1)).engine == "reference"


def test_a_server_forks_its_own_which_holds_none_of_its_files_and_ends_with_it(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    with running(tmp_path, "--shutdown-seconds", "0") as service:
        server = service.process.pid
        (forked,) = children(server)
        assert Path(f"/proc/{forked}/cmdline").read_bytes() == Path(f"/proc/{server}/cmdline").read_bytes()
        # Its standard ones, of which the first is that of its calls: no port stays open because of it.
        while descriptors(forked) != ["0", "1", "2"]:
            assert service.process.poll() is None
        ended = os.pidfd_open(forked)
        service.process.kill()
        assert select.select([ended], [], [], 60)[0]
        os.close(ended)


def descriptors(process: int) -> list[str]:
    """Return the numbers of a process's open descriptors."""
    return sorted(path.name for path in Path(f"/proc/{process}/fd").iterdir())


COMPILING = """
from spikeserve.models.engines.compiling import compiling
with compiling():
    print("begun", flush=True)
    input()
"""


def test_no_process_waits_for_one_that_has_died_while_it_compiled() -> None:
    command = [sys.executable, "-c", COMPILING]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as compiles:
        assert compiles.stdout is not None
        assert compiles.stdout.readline() == b"begun\n"
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waits:
            assert waits.stdout is not None
            compiles.kill()
            assert waits.stdout.readline() == b"begun\n"
            waits.kill()
