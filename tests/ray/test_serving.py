"""Replicas of Ray Serve answer as one server does, whatever becomes of them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Semaphore
from time import monotonic, sleep
from typing import Any, Self

import httpx
import numpy as np
import pytest
import yaml

from models.spec.network import Network
from service.errors import Misconfigured
from spikeserve import Client, Window
from tests.bundles import publish
from tests.client.test_moved import by_steps
from tests.networks import toy
from tests.ray.processes import replicas
from tests.service.sessions.test_moved import STEPS, WINDOW, events, recurrent
from tests.serving import ROOT, serving

pytest.importorskip("ray", reason="Ray is not installed: ./scripts/test-ray")

from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from deploy.ray.serving import application


def deploy(args: dict[str, Any], **options: Any) -> None:
    """Deploy what serve.yaml says under the path /app, except for `args` and the deployment's `options`."""
    config = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    (app,) = config["applications"]
    app |= {"name": "app", "route_prefix": "/app", "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}}}
    app["args"] |= {"engine": "reference", "log_level": "error", **{name: str(value) for name, value in args.items()}}
    (deployment,) = app["deployments"]
    del deployment["autoscaling_config"]
    deployment |= {"num_replicas": 1, "graceful_shutdown_wait_loop_s": 0.1, **options}
    schema = ServeDeploySchema.model_validate({"applications": [app]})
    _get_global_client().deploy_apps(schema)  # as `serve deploy` does by way of the dashboard, which does not run here


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask again and again until it is so."""
    end = monotonic() + 60
    while not condition():
        assert monotonic() < end
        sleep(0.05)


def is_running() -> bool:
    app = serve.status().applications.get("app")
    assert app is None or app.status != "DEPLOY_FAILED", app
    return app is not None and app.status == "RUNNING"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of `toy`, the second with the inputs exchanged, and a network with every kind of state."""
    root = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    publish(root, Network(toy().spec, {"fc.weight": np.array([[0, 1], [1, 0]], np.float32)}))
    publish(root, recurrent(), "net")
    return root


@pytest.fixture(scope="module")
def app(proxy: str, repository: Path) -> Iterator[str]:
    """Return the address of two replicas that serve version 1 of `toy`."""
    deploy({"repository": repository, "default_model": "toy"}, num_replicas=2, user_config=pinned(1))
    wait_for(is_running)
    yield f"{proxy}/app"
    serve.delete("app")


def pinned(version: int) -> dict[str, Any]:
    return {"versions": {"toy": [version]}}


# Decay 0.5 and threshold 1: over 3 steps 1 charges 1 (a spike), 1 and 1; 0 never charges.
SAMPLE: dict[str, Any] = {"inputs": [[1.0, 0.0]]}
COUNTS = {1: [3, 0], 2: [0, 3]}  # by the version


class Load:
    """Clients that ask again and again until they are stopped, and what they were answered, in order.

    They follow the rule of the page: what Ray's proxy answers in plain text, and a lost connection, is asked again.
    """

    def __init__(self, url: str, clients: int = 4) -> None:
        self.url = url
        self.stopped = Event()
        self.answered = Semaphore(0)
        self.answers: list[dict[str, Any]] = []
        self.asked_again: list[int | str] = []
        self.pool = ThreadPoolExecutor(clients)
        self.tasks = [self.pool.submit(self._ask) for _ in range(clients)]

    def _ask(self) -> int:
        accepted = 0
        with httpx.Client(timeout=60) as client:
            while not self.stopped.is_set():
                self.answers.append(self._answer(client))
                self.answered.release()
                accepted += 1
        return accepted

    def _answer(self, client: httpx.Client) -> dict[str, Any]:
        while True:
            try:
                response = client.post(f"{self.url}/models/toy/predict", json=SAMPLE)
            except httpx.TransportError as error:
                self.asked_again.append(type(error).__name__)
                continue
            if response.status_code == 200:
                answer: dict[str, Any] = response.json()
                return answer
            assert response.headers["content-type"].startswith("text/plain"), response.text
            self.asked_again.append(response.status_code)

    def wait(self, answers: int) -> None:
        """Wait for so many more answers."""
        for _ in range(answers):
            assert self.answered.acquire(timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        accepted = sum(task.result() for task in self.tasks)
        self.pool.shutdown()
        assert len(self.answers) == accepted  # each request has one answer
        for answer in self.answers:  # which is the reference's
            assert answer["predictions"][0]["spike_counts"] == COUNTS[answer["version"]]


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
        assert "can only be loaded in all replicas at once" in answer.json()["error"]


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


def test_a_rolling_update_loses_no_request(app: str, repository: Path) -> None:
    before = replicas()
    with Load(app) as load:
        load.wait(20)
        deploy(  # other settings: every replica is replaced
            {"repository": repository, "default_model": "toy", "max_samples": 8}, num_replicas=2, user_config=pinned(2)
        )
        wait_for(lambda: len(replicas()) == 2 and not replicas() & before)
        load.wait(20)
    assert load.asked_again == []


def test_a_replica_that_is_killed_costs_no_answer(app: str) -> None:
    with Load(app, clients=8) as load:
        load.wait(20)
        os.kill(min(replicas()), signal.SIGKILL)
        load.wait(200)
    # The proxy answers 500 to the requests that the replica had, or with HAProxy they lose their connections; before
    # long it knows that the replica is gone.
    assert set(load.asked_again) <= {500, 503, "RemoteProtocolError", "ReadError"}
    assert len(load.asked_again) <= 16


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
        for path in (*names, "a/versions/1", "a", "b", "a/versions/1"):
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
