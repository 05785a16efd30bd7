"""Replicas of deploy/ray/serve.yaml come with the load and go without it, and no request is lost on the way."""

import re
from pathlib import Path

import httpx
import pytest

from tests.bundles import publish
from tests.networks import toy
from tests.plugins.ray.load import SAMPLE, Load
from tests.plugins.ray.processes import replicas

pytest.importorskip("ray", reason="Ray is not installed: ./scripts/test-ray")

from ray import serve

from tests.plugins.ray.deployed import deploy, deploy_app, details, from_file, is_running, replica_states, wait_for

LONG = 20_000  # time steps, of which the reference engine takes thousands a second


def answered(url: str) -> float:
    """Return how many requests for a model were answered by the replica that this request happens to reach."""
    told = httpx.get(f"{url}/metrics").text
    return sum(float(count) for count in re.findall(r"^spikeserve_model_requests_total\{.*\} (\S+)$", told, re.M))


def test_replicas_come_with_the_load_and_go_without_it_and_no_request_is_lost(proxy: str, tmp_path: Path) -> None:
    publish(tmp_path, toy())
    scaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 1,
        "metrics_interval_s": 0.2,
        "look_back_period_s": 1,
    }
    deploy({"repository": tmp_path, "max_time_steps": LONG}, autoscaling_config=scaling)
    wait_for(is_running)
    url = f"{proxy}/app"
    try:
        assert replica_states() == {"RUNNING": 1}
        with Load(url, clients=1) as few:  # for which one replica is enough; it goes on until the end
            few.wait(5)
            with Load(url, clients=6, time_steps=LONG) as many:
                wait_for(lambda: replica_states() == {"RUNNING": 2})
                assert len(replicas()) == 2
                wait_for(lambda: min(answered(url) for _ in range(20)) > 0)  # the new one answers too
            wait_for(lambda: replica_states() == {"RUNNING": 1})
            wait_for(lambda: len(replicas()) == 1)
            few.wait(5)
        assert many.answers
        assert few.asked_again == many.asked_again == []
    finally:
        serve.delete("app")


def test_the_file_is_deployed_as_it_stands_but_for_the_repository(proxy: str, tmp_path: Path) -> None:
    publish(tmp_path, toy())
    config = from_file()
    (app,) = config["applications"]
    app["args"]["repository"] = str(tmp_path)
    deploy_app(app, {"SPIKESERVE_ENGINE": "reference"})
    wait_for(lambda: is_running("spikeserve"))
    try:
        answer = httpx.post(f"{proxy}/predict", json=SAMPLE)
        assert answer.json()["predictions"][0]["spike_counts"] == [3, 0]
        (said,) = app["deployments"]
        found = details().applications["spikeserve"].deployments["spikeserve"].deployment_config
        options = found.model_dump(exclude_unset=True)
        for name, value in said.items():  # to a mapping Ray adds its defaults
            assert options[name] == (options[name] | value if isinstance(value, dict) else value)
    finally:
        serve.delete("spikeserve")
