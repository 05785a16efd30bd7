"""A bundle that takes any time or memory to be loaded costs a process of its own, and stops nothing else."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.errors import InvalidBundle
from spikeserve.service.app import create_app
from spikeserve.service.catalog.load_process import _servers
from spikeserve.service.catalog.loaded import LoadedModel, verify
from spikeserve.service.errors import LoadFailed
from spikeserve.service.settings import Settings
from tests.bundles import publish, publish_slow, rewrite
from tests.networks import toy
from tests.service.asgi import LEFT, Client, metric, started
from tests.service.processes import children, gone, until
from tests.service.versions import doubled
from tests.serving import running

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="watches processes as Linux shows them")


@asynccontextmanager
async def beginning(root: Path, **settings: Any) -> AsyncIterator[Client]:
    """Start an app, and go on at once."""
    app = create_app(Settings(repository=root, engine="reference", **settings))
    async with app.router.lifespan_context(app):
        yield Client(app)


async def status(client: Client, name: str) -> dict[str, Any]:
    """Return the status of a model's newest version."""
    models = (await client.get("/models")).json["models"]
    newest: dict[str, Any] = next(model["versions"][-1] for model in models if model["name"] == name)
    return newest


async def until_status(client: Client, name: str, **wanted: Any) -> None:
    async with asyncio.timeout(60):
        while not (await status(client, name)).items() >= wanted.items():
            await asyncio.sleep(0.01)


def fork_server() -> int:
    """Return the process of the fork server of this process's apps."""
    running = _servers["reference"].running
    assert running is not None
    return running[0]


def loading() -> list[int]:
    """Return the processes in which versions are being verified now; each has one that watches it."""
    return [load for watcher in children(fork_server()) for load in children(watcher)]


@asynccontextmanager
async def one_endless_load(root: Path) -> AsyncIterator[Client]:
    """Serve the model toy beside one, loops, whose load does not end; go on once toy is ready and that has begun."""
    publish_slow(root, "loops")
    async with beginning(root, default_model="toy", load_seconds=3600) as client:
        await until_status(client, "toy", state="ready")
        await until(lambda: len(loading()) == 1)
        yield client


async def test_endless_loads_are_stopped_by_a_sentence_and_delay_no_other_model(repository: Path) -> None:
    for name in ("circles", "loops", "rounds"):
        publish_slow(repository, name)
    async with started(repository, engine="reference", default_model="toy", load_seconds=3) as client:
        assert (await client.post(LEFT)).status == 200
        for name in ("circles", "loops", "rounds"):
            failed = await status(client, name)
            assert failed["state"] == "failed"
            assert failed["error"] == "loading it took longer than 3 s (load_seconds) and was stopped"
        assert loading() == []


async def test_while_a_load_goes_on_others_are_found_and_loaded_and_it_says_for_how_long(repository: Path) -> None:
    publish_slow(repository, "loops")
    async with beginning(repository, default_model="toy", load_seconds=3600) as client:
        await until_status(client, "toy", state="ready")
        await until(lambda: list(client.loader.loads.values()) == ["loops"])  # a poll leaves what loads alone
        publish(repository, doubled())
        await client.loader.poll()  # which does not wait for anything that loads
        await until_status(client, "toy", version=2, state="ready")
        publish_slow(repository, "loops")  # a second version waits for a poll after the load of the first
        await client.loader.poll()
        assert list(client.loader.loads.values()) == ["loops"]
        found = await status(client, "loops")
        assert found["state"] == "loading"
        assert found["loading_seconds"] > 0
        assert "model 'loops' version 1 is still loading, for " in (await client.get("/health/ready")).json["error"]
        assert await metric(client, 'spikeserve_model_loading_seconds{model="loops",version="1"}') > 0
        (listed,) = [
            each
            for each in (await client.call("POST", "/v2/repository/index", b"{}", {}, asyncio.Event())).json
            if each["name"] == "loops"
        ]
        assert "still loading, for " in listed["reason"]


async def test_the_default_model_is_the_first_that_is_loaded(repository: Path) -> None:
    for name in ("circles", "loops", "rounds"):
        publish_slow(repository, name)
    async with beginning(repository, default_model="loops", load_seconds=3600) as client:
        await until(lambda: "circles" in client.loader.loads.values())
        assert next(iter(client.loader.loads.values())) == "loops"


async def test_unloading_a_model_that_loads_kills_its_process_and_ends_who_waits_for_it(repository: Path) -> None:
    async with one_endless_load(repository) as client:
        (process,), loader = loading(), client.loader
        asked = asyncio.gather(loader.load("loops"), loader.set_versions("loops", [1]), return_exceptions=True)
        await until(lambda: list(loader.loads.values()) == ["loops"] * 3)
        await loader.unload("loops")
        refused = await asyncio.wait_for(asked, timeout=60)
        assert list(map(str, refused)) == ["model 'loops' was unloaded while it was loading"] * 2
        await until(lambda: gone(process))
        assert (await client.post(LEFT, "/models/loops/predict")).status == 404
        await client.loader.poll()
        assert client.loader.loads == {}  # what was unloaded is not loaded again by itself


async def test_an_app_that_stops_kills_what_it_loads(repository: Path) -> None:
    async with one_endless_load(repository):
        (process,) = loading()
    await until(lambda: gone(process))


def filling(*_: Any) -> None:
    """Take six gigabytes."""
    np.ones(1_500_000_000, np.float32)


async def test_a_load_that_takes_too_much_memory_is_stopped_by_a_sentence(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(repository, engine="reference", max_model_bytes=2**28) as client:
        monkeypatch.setattr("spikeserve.service.catalog.load_process.verified", filling)
        publish(repository, toy(), "large")
        with pytest.raises(LoadFailed, match="more than max_model_bytes and was stopped"):
            await client.loader.load("large")
        assert (await client.post(LEFT)).status == 200


async def test_a_process_that_is_killed_while_it_loads_is_told_of_by_a_sentence(repository: Path) -> None:
    async with one_endless_load(repository) as client:
        os.kill(loading()[0], signal.SIGKILL)
        await until_status(client, "loops", state="failed")
        sentence = "the process that loaded it was killed (SIGKILL); most likely the machine ran out of memory"
        assert (await status(client, "loops"))["error"] == sentence
        assert (await client.post(LEFT)).status == 200


async def test_a_fork_server_that_dies_takes_its_loads_with_it_and_the_next_load_has_another(repository: Path) -> None:
    async with one_endless_load(repository) as client:
        (process,) = loading()
        server = fork_server()
        os.kill(server, signal.SIGKILL)
        await until_status(client, "loops", state="failed")
        assert (await status(client, "loops"))["error"] == "the process that loaded it ended with its server"
        await until(lambda: gone(process))
        await client.loader.load("toy")
        assert fork_server() != server


async def test_a_service_that_is_killed_leaves_no_process_behind(repository: Path) -> None:
    publish_slow(repository, "loops")
    with running(
        repository, "--load-seconds", "3600", "--workers", "2", "--engine", "reference", "--default-model", "toy"
    ) as service:
        main = service.process.pid
        await until(lambda: len(children(main)) == 2)
        serving = children(main)
        await until(lambda: all(children(each) for each in serving))
        servers = [child for each in serving for child in children(each)]
        await until(lambda: all(children(child) for server in servers for child in children(server) or [0]))
        watchers = [child for server in servers for child in children(server)]
        below = [*watchers, *(load for watcher in watchers for load in children(watcher))]
        assert len(below) >= 4
        for process in (main, *serving):
            os.kill(process, signal.SIGKILL)
        await until(lambda: all(gone(process) for process in (*servers, *below)))


def test_a_bundle_that_changes_after_it_was_verified_is_not_loaded(repository: Path) -> None:
    settings = Settings(repository=repository)
    verified = verify("toy", 1, settings)
    assert LoadedModel.load("toy", 1, settings, verified).version == 1
    rewrite(repository / "toy" / "1", lambda manifest: manifest.update(producer="somebody else"))
    with pytest.raises(InvalidBundle, match=r"^bundle\.json: its sha256 is .* when it was verified, just before$"):
        LoadedModel.load("toy", 1, settings, verified)
