"""Whatever is sent, nothing but what is documented comes back: no 5xx, and right answers afterwards.

`./scripts/soak` sends many more of the same.
"""

import asyncio
import json
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import schemathesis

from benchmarks.soak.client import Connection
from benchmarks.soak.documented import CONTROL, ask_all
from benchmarks.soak.hostile import Hostile, hostile
from benchmarks.soak.questions import tensor_of
from tests.bundles import publish, published
from tests.networks import network_of, regression, task, toy
from tests.serving import Process, running

EXAMPLES = 6  # of each operation, sound by the document and not

# Into a decay of 0.5 and a threshold of 1: 1 spikes at each of three steps; 0.5 charges 0.5, 0.75, 0.875, no spike.
SOUND: dict[str, Any] = {"inputs": [[1, 0.5]]}
COUNTS = [3, 0]
MODELS = ("toy", "camera", "regression")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The toy, a network of events and one that answers values, by one process."""
    root = published(tmp_path_factory, toy=toy())
    camera = network_of(
        [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}], {}, **task([2, 2, 1], 3, "abcd", "spikes")
    )
    publish(root, camera, "camera")
    publish(root, regression(units=["rad", "m/s"]), "regression")
    with running(root, "--default-model", "toy", ready=len(MODELS)) as process:
        yield process


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The toy, by a process that waits two seconds for what stops."""
    with running(published(tmp_path_factory, toy=toy()), "--client-seconds", "2") as process:
        yield process
        assert process.stop() == 0


def answers_as_ever(service: Process) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        answer = client.post("/predict", json=SOUND)
        assert answer.status_code == 200
        assert answer.json()["predictions"][0]["spike_counts"] == COUNTS
        asked = {"inputs": [tensor_of(SOUND)], "outputs": [{"name": "spike_counts"}]}
        answer = client.post("/v2/models/toy/infer", json=asked)
        assert answer.status_code == 200
        assert answer.json()["outputs"][0]["data"] == COUNTS
        assert client.get("/health/ready").status_code == 200


def test_nothing_but_what_the_document_says_comes_back(service: Process) -> None:
    answers_as_ever(service)
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    assert ask_all(document.exclude(path_regex=CONTROL), MODELS, EXAMPLES) > 20
    answers_as_ever(service)


def test_models_come_and_go_as_the_document_says(service: Process) -> None:
    document = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    assert ask_all(document.include(path_regex=CONTROL), MODELS, EXAMPLES) == 2
    for name in MODELS:
        assert httpx.post(f"{service.url}/v2/repository/models/{name}/load", timeout=60).status_code == 200
    answers_as_ever(service)


@pytest.mark.parametrize("case", hostile(SOUND), ids=lambda case: case.name[:80].encode("ascii", "replace").decode())
def test_a_hostile_request_is_refused_and_the_next_one_answered(request: pytest.FixtureRequest, case: Hostile) -> None:
    service: Process = request.getfixturevalue("hasty" if HTTPStatus.REQUEST_TIMEOUT in case.statuses else "service")

    async def ask() -> tuple[int, bytes]:
        where = urlsplit(service.url)
        async with Connection(where.hostname or "", where.port or 0) as connection:
            answer = await connection.ask(case.request)
            return answer.status, answer.body

    status, body = asyncio.run(ask())
    assert status in case.statuses, body
    if status != 200:
        assert json.loads(body).keys() == {"error"}
        assert len(body) < 400
    answers_as_ever(service)


def test_it_ends_as_it_should_after_all_that(service: Process) -> None:
    answers_as_ever(service)
    assert service.stop() == 0
    assert not [entry for entry in service.entries if entry.get("level") == "error"]
