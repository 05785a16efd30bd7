"""Replicas of Ray Serve answer as one server does, whatever becomes of them."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from spikeserve import Client, Window
from spikeserve.models.spec.network import Network
from spikeserve.service.errors import Misconfigured
from tests.bundles import publish, published
from tests.networks import toy
from tests.plugins.ray.load import SAMPLE, Load
from tests.plugins.ray.processes import replicas
from tests.plugins.ray.stateful import STEPS, WINDOW, by_steps, events, recurrent
from tests.service.sessions.conftest import check_one_message, pairs
from tests.serving import serving

pytest.importorskip("ray", reason="Ray is not installed: ./scripts/test-ray")

from ray import serve

from deploy.ray.serving import application
from tests.plugins.ray.deployed import deploy, is_running, wait_for


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of `toy`, the second with the inputs exchanged, a network with every kind of state, and `pairs`."""
    root = published(tmp_path_factory, toy=toy())
    publish(root, Network(toy().spec, {"fc.weight": np.array([[0, 1], [1, 0]], np.float32)}))
    publish(root, recurrent(), "net")
    publish(root, pairs(), "pairs")
    return root


@pytest.fixture(scope="module")
def address(proxy: str) -> Iterator[str]:
    """Return the address at which `app` is deployed for each test; it is deleted after the last."""
    yield f"{proxy}/app"
    serve.delete("app")


@pytest.fixture
def app(address: str, repository: Path) -> str:
    """Return the address of two replicas that serve version 1 of `toy`, whatever the test before has left."""
    deploy({"repository": repository, "default_model": "toy"}, num_replicas=2, user_config=pinned(1))
    wait_for(is_running)
    return address


def pinned(*versions: int) -> dict[str, Any]:
    return {"versions": {"toy": list(versions)}}


def test_a_replica_answers_what_one_server_does(app: str, repository: Path) -> None:
    bodies = [SAMPLE, {"inputs": [[1.0]]}, {"inputs": [[99.0, 0.0]]}, {"input": 1}]
    with serving(repository, engine="reference", versions="1", default_model="toy") as client:
        for body in bodies:
            one, other = client.post("/predict", json=body), httpx.post(f"{app}/predict", json=body)
            assert (other.status_code, other.json()) == (one.status_code, one.json())


def test_a_model_cannot_be_loaded_or_unloaded_in_one_replica_alone(app: str) -> None:
    for action in ("load", "unload"):
        answer = httpx.post(f"{app}/v2/repository/models/toy/{action}")
        assert answer.status_code == 400
        assert "is loaded and unloaded in all replicas at once" in answer.json()["error"]


def test_another_user_config_changes_the_version_in_every_replica_and_ends_none(app: str, repository: Path) -> None:
    before = replicas()
    with Load(app) as load:
        load.wait(20)
        deploy({"repository": repository, "default_model": "toy"}, num_replicas=2, user_config=pinned(2))
        wait_for(lambda: {answer["version"] for answer in load.answers[-40:]} == {2})
    assert replicas() == before
    assert len(before) == 2
    assert load.asked_again == []
    assert {answer["version"] for answer in load.answers[:20]} == {1}

    deploy({"repository": repository, "default_model": "toy"}, num_replicas=2, user_config=pinned(1, 2))
    wait_for(is_running)
    for version in [1, 2] * 10:  # in every replica, which are reached by chance
        answer = httpx.post(f"{app}/models/toy/versions/{version}/predict", json=SAMPLE)
        assert answer.json()["version"] == version


def test_a_replica_that_is_killed_costs_no_answer(app: str) -> None:
    with Load(app, clients=8) as load:
        load.wait(20)
        os.kill(min(replicas()), signal.SIGKILL)
        load.wait(200)
    # The proxy answers 500 to the requests that the replica had, or with HAProxy they lose their connections; before
    # long it knows that the replica is gone.
    assert set(load.asked_again) <= {500, 503, "RemoteProtocolError", "ReadError"}
    assert len(load.asked_again) <= 16


def test_every_line_of_one_message_arrives(address: str, repository: Path) -> None:
    # The event engine runs many windows at once, whose lines are sent together.
    deploy({"repository": repository, "default_model": "toy", "engine": "event"})
    wait_for(is_running)
    check_one_message(address)


def test_a_session_goes_on_in_another_replica_with_its_state(app: str) -> None:
    records, raster = events()
    found: list[Window] = []
    with Client(app, model="net") as client:
        for window in client.stream(by_steps(records), state_every=3, retries=60):
            found.append(window)
            if window.window in (5, 13):
                for replica in replicas():
                    os.kill(replica, signal.SIGKILL)
        (whole,) = client.predict(raster)
    assert [window.window for window in found] == list(range(STEPS // WINDOW))
    assert found[-1].spike_counts == whole.spike_counts.tolist()
    assert sum(found[-1].spike_counts) > 10


def test_a_rolling_update_loses_no_request(app: str, repository: Path) -> None:
    before = replicas()
    with Load(app) as load:
        load.wait(20)
        deploy(  # other settings: every replica is replaced
            {"repository": repository, "default_model": "toy", "max_batch": 8}, num_replicas=2, user_config=pinned(1)
        )
        wait_for(lambda: len(replicas()) == 2 and not replicas() & before)
        load.wait(20)
    assert load.asked_again == []


def test_a_replica_has_as_many_models_as_it_may_and_loads_others_on_demand(proxy: str, tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for name in names:
        publish(tmp_path, toy(), name)
    publish(tmp_path, toy(), "a")
    deploy({"repository": tmp_path, "models_per_replica": 2})
    wait_for(is_running)
    url = f"{proxy}/app"

    def loaded() -> dict[str, Any]:
        return {each["name"]: each["versions"] for each in httpx.get(f"{url}/models").json()["models"]}

    try:
        assert loaded() == {}
        # Version 1 of `a` comes and goes beside the newest, 2: each stays as long as it is held by its own name.
        for path in (*names, "a/versions/1", "a", "a/versions/1", "b", "a/versions/1"):
            headers = {"serve_multiplexed_model_id": path.replace("/versions", "")}
            answer = httpx.post(f"{url}/models/{path}/predict", json=SAMPLE, headers=headers, timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"][0]["spike_counts"] == [3, 0]
            assert answer.json()["version"] == (2 if path == "a" else 1)
            assert len(loaded()) <= 2
        assert set(loaded()) == {"a", "b"}
        assert [each["version"] for each in loaded()["a"]] == [1]
        for path in ("nothing", "a/versions/3", "a/versions/x"):  # for which none is unloaded
            assert httpx.post(f"{url}/models/{path}/predict", json=SAMPLE).status_code == 404
        assert set(loaded()) == {"a", "b"}
    finally:
        serve.delete("app")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"workers": 2}, "workers is 2, expected 1 on Ray: use Ray's num_replicas"),
        ({"poll_seconds": 1}, "poll_seconds is 1.0, expected 0 on Ray: use user_config, or deploy again"),
        ({"models_per_replica": "many"}, "models_per_replica is 'many', expected a whole number, 0 for all models"),
        ({"repository": "/nowhere"}, "repository is '/nowhere', expected a folder that exists"),
    ],
)
def test_what_cannot_be_deployed_is_refused_by_a_sentence(args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=re.escape(sentence)):
        application(args)
