"""Versions come and go under load: the old one answers until the new one is ready, and no request is lost."""

import asyncio
import gc
import os
import shutil
import threading
from pathlib import Path

import pytest
import structlog

from spikeserve.models.bundle import File
from spikeserve.service.catalog.loaded import LoadedModel, Verification
from spikeserve.service.catalog.loader import Loader
from spikeserve.service.errors import LoadFailed, ModelNotFound
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.networks import network_of, task, toy
from tests.service.asgi import LEFT, Client, settled, slow, started
from tests.service.infer_requests import INFER, request
from tests.service.versions import COUNTS, HALF, damage, doubled


async def poll(loader: Loader) -> None:
    """Poll, and wait until what that began to load is loaded or has failed."""
    await loader.poll()
    await loader.loads_over()


async def versions(client: Client) -> list[tuple[int, str]]:
    (model,) = (await client.get("/models")).json["models"]
    return [(each["version"], each["state"]) for each in model["versions"]]


async def test_reloads_under_200_requests_a_second_lose_none_and_mix_no_versions(repository: Path) -> None:
    async with started(repository) as client:
        done = asyncio.Event()
        loaded = 1

        async def ask_on() -> int:
            answers = 0
            while not done.is_set():
                least = loaded
                answer = await client.post(HALF)
                assert answer.status == 200, answer.json
                assert answer.json["version"] >= least
                assert answer.json["predictions"][0]["spike_counts"] == COUNTS[answer.json["version"] % 2]
                answers += 1
                await asyncio.sleep(0.02)  # four clients, 50 requests a second each
            return answers

        asking = [asyncio.create_task(ask_on()) for _ in range(4)]
        for version in range(2, 12):
            await asyncio.to_thread(publish, repository, toy() if version % 2 else doubled())
            await client.loader.load("toy")
            loaded = version
        done.set()
        assert all([await each for each in asking])
        assert await versions(client) == [(11, "ready")]
        gc.collect()
        text = (await client.get("/metrics")).json
        assert {line for line in text.splitlines() if line.startswith("spikeserve_samples_total{")} == {
            line for line in text.splitlines() if line.startswith('spikeserve_samples_total{model="toy",version="11"}')
        }


async def test_the_old_version_answers_until_the_new_one_is_ready_and_finishes_what_it_began(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, go_on = LoadedModel.load, threading.Event()

    def waiting(name: str, version: int, settings: Settings, verified: Verification) -> LoadedModel:
        assert go_on.wait(timeout=60)
        return load(name, version, settings, verified)

    async with started(repository, threads=3) as client:  # two are held
        held = slow(client.model())
        begun = asyncio.create_task(client.post(HALF))
        await held.begun()
        monkeypatch.setattr(LoadedModel, "load", waiting)
        publish(repository, doubled())
        loading = asyncio.create_task(client.loader.load("toy"))
        while await versions(client) != [(1, "ready"), (2, "loading")]:
            await asyncio.sleep(0)
        assert (await client.get("/health/ready")).status == 200
        before = asyncio.create_task(client.post(HALF))
        await settled()
        go_on.set()
        await loading
        assert await versions(client) == [(1, "draining"), (2, "ready")]
        assert (await client.get("/models/toy")).json["versions"][0]["state"] == "draining"
        assert (await client.post(HALF)).json["version"] == 2
        assert (await client.post(HALF, "/models/toy/versions/1/predict")).status == 404
        held.go_on.release(2)
        for old in (await begun, await before):
            assert (old.json["version"], old.json["predictions"][0]["spike_counts"]) == (1, [0, 0])
        assert await versions(client) == [(2, "ready")]


@pytest.mark.parametrize("path", ["/predict", INFER])
async def test_a_version_drains_until_its_last_request_has_ended_however_that_is(repository: Path, path: str) -> None:
    async with started(repository, threads=1) as client:
        held, gone = slow(client.model()), asyncio.Event()
        asked = request([[0.5, 0.0]]) if path == INFER else HALF
        asking = asyncio.create_task(client.post(asked, path, left=gone))
        await held.begun()
        publish(repository, doubled())
        await client.loader.load("toy")
        assert await versions(client) == [(1, "draining"), (2, "ready")]
        gone.set()
        assert (await asking).status == 0
        assert await versions(client) == [(2, "ready")]
        held.go_on.release()


async def test_a_poll_finds_new_versions_and_models_and_tries_a_changed_one_again(repository: Path) -> None:
    async with started(repository) as client:
        loader = client.loader
        publish(repository, doubled())
        damage(repository, 2)
        await poll(loader)
        assert await versions(client) == [(1, "ready"), (2, "failed")]
        with structlog.testing.capture_logs() as entries:
            await poll(loader)
        assert entries == []
        weights = repository / "toy" / "2" / File.WEIGHTS
        weights.write_bytes(weights.read_bytes()[:-1])
        await poll(loader)
        assert await versions(client) == [(2, "ready")]
        publish(repository, toy(), "other")
        await poll(loader)
        assert (await client.post(LEFT, "/models/other/predict")).status == 200
        shutil.rmtree(repository / "toy" / "2")  # as one rolls back
        await poll(loader)
        assert (await client.post(LEFT, "/models/toy/predict")).json["version"] == 1
        shutil.rmtree(repository / "toy")
        await poll(loader)
        assert (await client.post(LEFT, "/models/toy/predict")).json["version"] == 1


async def test_a_poll_leaves_a_version_that_answers_alone_though_its_files_were_touched(repository: Path) -> None:
    async with started(repository) as client:
        before = client.model()
        for file in (repository / "toy" / "1").iterdir():
            os.utime(file, (0, 0))
        with structlog.testing.capture_logs() as entries:
            await poll(client.loader)
        assert entries == []
        assert client.model() is before


async def test_a_model_that_comes_later_leaves_it_ready(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load, go_on = LoadedModel.load, threading.Event()

    def waiting(name: str, version: int, settings: Settings, verified: Verification) -> LoadedModel:
        assert name == "toy" or go_on.wait(timeout=60)
        return load(name, version, settings, verified)

    monkeypatch.setattr(LoadedModel, "load", waiting)
    async with started(repository) as client:
        publish(repository, toy(), "other")
        damage(repository, 1, "other")
        await client.loader.poll()
        while len((await client.get("/models")).json["models"]) < 2:
            await asyncio.sleep(0)
        assert (await client.get("/health/ready")).status == 200  # while it loads
        go_on.set()
        await client.loader.loads_over()
        assert (await client.get("/health/ready")).status == 200  # and once it has failed
        failed = await client.post(LEFT, "/models/other/predict")
        assert (failed.status, "sha256" in failed.json["error"]) == (503, True)
        await client.loader.unload("toy")
        assert (await client.get("/health/ready")).status == 503  # now that nothing answers


@pytest.mark.parametrize(("strict", "status"), [(True, 503), (False, 200)])
def test_a_model_that_fails_at_the_start_counts_until_it_is_mended_or_unloaded_if_that_is_set(
    repository: Path, strict: bool, status: int
) -> None:
    async def ask() -> None:
        async with started(repository, default_model="toy", strict_readiness=strict) as client:
            assert (await client.get("/health/ready")).status == status
            for name in ("mended", "unloaded"):
                assert (await client.post(LEFT, f"/models/{name}/predict")).status == 503
            await client.loader.unload("unloaded")
            assert (await client.get("/health/ready")).status == status
            shutil.rmtree(repository / "mended" / "1")
            publish(repository, toy(), "mended")
            await client.loader.load("mended")
            assert (await client.get("/health/ready")).status == 200

    for name in ("mended", "unloaded"):
        publish(repository, toy(), name)
        damage(repository, 1, name)
    asyncio.run(ask())


async def test_strict_readiness_forgets_a_model_that_was_unloaded_also_if_it_comes_again(repository: Path) -> None:
    publish(repository, toy(), "other")
    damage(repository, 1, "other")
    async with started(repository, default_model="toy", strict_readiness=True) as client:
        assert (await client.get("/health/ready")).status == 503
        await client.loader.unload("other")
        with pytest.raises(LoadFailed):  # it is as damaged as before, and now one that came later
            await client.loader.load("other")
        assert (await client.get("/health/ready")).status == 200


async def test_a_version_may_be_loaded_again_as_another_network(repository: Path) -> None:
    renamed = network_of(
        [{"type": "IF", "name": "first"}, {"type": "IF", "name": "second"}],
        {},
        **task(2, 3, ["left", "right"], low=0, high=1),
    )
    async with started(repository) as client:
        assert (await client.post(LEFT)).status == 200
        shutil.rmtree(repository / "toy" / "1")
        assert publish(repository, renamed) == 1
        await client.loader.load("toy")
        assert (await client.post(LEFT)).status == 200
        metrics = str((await client.get("/metrics")).json)
    assert 'spikeserve_layer_spikes_total{layer="second",model="toy",version="1"} 3.0' in metrics
    assert 'layer="out"' not in metrics


async def test_it_polls_by_itself_where_that_is_set(repository: Path) -> None:
    async with started(repository, poll_seconds=0.01) as client:
        publish(repository, doubled())
        async with asyncio.timeout(60):
            while await versions(client) != [(2, "ready")]:
                await asyncio.sleep(0)


@pytest.mark.parametrize(("setting", "served"), [("all", [1, 2, 3]), ("latest", [3]), ("1,3,9", [1, 3]), ("2", [2])])
def test_the_settings_say_which_versions_are_served(repository: Path, setting: str, served: list[int]) -> None:
    async def ask() -> None:
        async with started(repository, versions=setting) as client:
            assert await versions(client) == [(version, "ready") for version in served]
            publish(repository, toy())
            await client.loader.load("toy")
            grown = {"all": [1, 2, 3, 4], "latest": [4]}.get(setting, served)
            assert await versions(client) == [(version, "ready") for version in grown]

    for network in (doubled(), toy()):
        publish(repository, network)
    asyncio.run(ask())


async def test_exactly_the_versions_that_are_set_are_there_and_one_that_fails_changes_nothing(repository: Path) -> None:
    publish(repository, toy())
    async with started(repository) as client:
        for numbers in ([1, 2], [1]):
            await client.loader.set_versions("toy", numbers)
            assert await versions(client) == [(number, "ready") for number in numbers]
        with pytest.raises(LoadFailed, match="model 'toy' version 9 could not be loaded: model 'toy' has no version 9"):
            await client.loader.set_versions("toy", [9])
        assert [each for each in await versions(client) if each[1] == "ready"] == [(1, "ready")]
        await client.loader.set_versions("toy", [])
        assert (await client.get("/models")).json["models"] == []


async def test_no_name_leads_out_of_the_repository(repository: Path, tmp_path: Path) -> None:
    publish(tmp_path / "elsewhere", toy(), "secret")
    (repository / "linked").symlink_to(tmp_path / "elsewhere" / "secret")
    (repository / "toy" / "2").symlink_to(tmp_path / "elsewhere" / "secret" / "1")
    async with started(repository) as client:
        for name in ("linked", "../elsewhere/secret", str(tmp_path / "elsewhere" / "secret"), ".", "..", "", "toy/1"):
            for control in (client.loader.load, client.loader.unload):
                with pytest.raises(ModelNotFound):
                    await control(name)
        assert client.loader.locks.keys() == {"toy"}  # what is asked for in vain leaves nothing behind
        await poll(client.loader)
        assert await versions(client) == [(1, "ready")]
