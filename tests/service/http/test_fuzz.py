"""Whatever is sent, nothing but what is documented comes back: no 5xx, and right answers afterwards.

`./scripts/soak` sends many more of the same.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from benchmarks.soak.client import Connection
from benchmarks.soak.documented import CONTROL, ask_all
from benchmarks.soak.hostile import Hostile, hostile
from benchmarks.soak.questions import tensor_of
from tests.bundles import publish
from tests.networks import network_of, regression, toy
from tests.service.infer_requests import HEADER
from tests.serving import Process, running

EXAMPLES = 6  # of each operation, sound by the document and not

# Into a decay of 0.5 and a threshold of 1: 1 spikes at each of three steps; 0.5 charges 0.5, 0.75, 0.875, no spike.
SOUND: dict[str, Any] = {"inputs": [[1, 0.5]]}
COUNTS = [3, 0]
MODELS = ("toy", "camera", "regression")
NO_TLS = ssl.create_default_context()  # a client that makes its own reads all certificates each time


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The toy, a network of events and one that answers values, by a process that waits two seconds for what stops."""
    root: Path = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    camera = network_of(
        [{"type": "Flatten", "name": "flat"}, {"type": "IF", "name": "out"}],
        {},
        input={"shape": [2, 2, 1]},
        coding="spikes",
        time_steps=3,
        labels=["a", "b", "c", "d"],
    )
    publish(root, camera, "camera")
    publish(root, regression(units=["rad", "m/s"]), "regression")
    with running(root, "--default-model", "toy", "--client-seconds", "2") as process:
        for _ in MODELS[1:]:
            process.wait_for("model_ready")
        yield process


def answers_as_ever(service: Process) -> None:
    with httpx.Client(base_url=service.url, timeout=60, verify=NO_TLS) as client:
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


samples = st.lists(st.lists(st.floats(0, 10, width=32), min_size=2, max_size=2), min_size=1, max_size=4)


def test_what_fits_the_model_is_answered(service: Process) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:

        @seed(20)
        @settings(max_examples=EXAMPLES, deadline=None, database=None)
        @given(
            inputs=samples,
            time_steps=st.integers(1, 50),
            of_seed=st.integers(0, 2**64 - 1),
            wanted=st.sets(st.sampled_from(["raster", "membrane", "spikes_per_node"])),
        )
        def check(inputs: list[list[float]], time_steps: int, of_seed: int, wanted: set[str]) -> None:
            body = {"inputs": inputs, "time_steps": time_steps, "seed": of_seed, "return": sorted(wanted)}
            answer = client.post("/predict", json=body)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["predictions"]) == len(inputs)
            assert wanted <= answer.json()["predictions"][0].keys()

        check()


DATATYPES = {"FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "UINT8": "u1", "INT16": "<i2", "UINT64": "<u8"}
OUTPUTS = ["spike_counts", "probabilities", "class_index", "label", "synaptic_operations"]


def test_what_fits_the_model_is_answered_over_the_other_protocol(service: Process) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:

        @seed(20)
        @settings(max_examples=EXAMPLES, deadline=None, database=None)
        @given(
            rows=st.lists(st.lists(st.integers(0, 10), min_size=2, max_size=2), min_size=1, max_size=4),
            datatype=st.sampled_from(sorted(DATATYPES)),
            as_bytes=st.booleans(),
            outputs=st.lists(st.sampled_from(OUTPUTS), unique=True),
            classes=st.none() | st.integers(1, 4),
            time_steps=st.integers(1, 50),
            identity=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
        )
        def check(
            rows: list[list[int]],
            datatype: str,
            as_bytes: bool,
            outputs: list[str],
            classes: int | None,
            time_steps: int,
            identity: str | None,
        ) -> None:
            blob = np.array(rows, DATATYPES[datatype]).tobytes()
            tensor: dict[str, Any] = {"name": "inputs", "shape": [len(rows), 2], "datatype": datatype}
            tensor |= {"parameters": {"binary_data_size": len(blob)}} if as_bytes else {"data": rows}
            chosen = {"classification": classes} if classes is not None else {}
            wanted = [
                {"name": name, "parameters": chosen if name in ("spike_counts", "probabilities") else {}}
                for name in outputs
            ]
            body = {"id": identity, "inputs": [tensor], "outputs": wanted, "parameters": {"time_steps": time_steps}}
            header = json.dumps(body).encode()
            headers = {HEADER: str(len(header))} if as_bytes else {}
            content = header + blob if as_bytes else header
            answer = client.post("/v2/models/toy/infer", content=content, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json().get("id") == identity
            found = {output["name"]: output["shape"][0] for output in answer.json()["outputs"]}
            assert found == dict.fromkeys(outputs or OUTPUTS, len(rows))

        check()


@pytest.mark.parametrize("case", hostile(SOUND), ids=lambda case: case.name[:80].encode("ascii", "replace").decode())
def test_a_hostile_request_is_refused_and_the_next_one_answered(service: Process, case: Hostile) -> None:
    async def ask() -> tuple[int, bytes]:
        where = urlsplit(service.url)
        assert where.hostname is not None
        assert where.port is not None
        async with Connection(where.hostname, where.port) as connection:
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
