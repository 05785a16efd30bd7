"""Replicas that share a cache serve a repository in a bucket: each has the same version, and takes one pushed later."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from spikeserve.models.bundle.copies import CACHE, cache_of, repository_at
from spikeserve.models.spec.network import Network
from tests.bundles import contents
from tests.networks import toy
from tests.plugins.ray.load import Load
from tests.plugins.ray.processes import replicas
from tests.storage import s3

pytest.importorskip("ray", reason="Ray is not installed: ./scripts/test-ray")

from ray import serve

from tests.plugins.ray.deployed import deploy, is_running, wait_for

PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", CACHE)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with s3(tmp_path / "cache") as url:
        repository_at(url).publish(contents(toy()))
        yield url


def served(url: str) -> list[Any]:
    """Return the versions of `toy` that replicas say they have, each reached by chance: twenty answers reach both."""
    return [httpx.get(f"{url}/models/toy").json()["version"] for _ in range(20)]


def test_two_replicas_that_share_a_cache_serve_a_bucket_and_take_a_version_pushed_later(proxy: str, url: str) -> None:
    environment = {name: os.environ[name] for name in PASSED_ON}
    deploy({"repository": url}, environment, num_replicas=2)
    wait_for(is_running)
    app, before = f"{proxy}/app", replicas()
    try:
        with Load(app) as load:
            load.wait(20)
            assert set(served(app)) == {1}
            exchanged = Network(toy().spec, {"fc.weight": np.array([[0, 1], [1, 0]], np.float32)})
            assert repository_at(url).publish(contents(exchanged)) == 2
            deploy({"repository": url}, environment, num_replicas=2, user_config={"versions": {"toy": [2]}})
            wait_for(lambda: {answer["version"] for answer in load.answers[-40:]} == {2})
        assert set(served(app)) == {2}
        assert load.asked_again == []
        assert replicas() == before
        assert len(before) == 2
    finally:
        serve.delete("app")
    # Each copied what the other had not, and left nothing half copied.
    assert sorted(path.name for path in (cache_of(url) / "toy").iterdir()) == ["1", "2"]
