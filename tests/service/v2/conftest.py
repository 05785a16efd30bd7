"""A service as a process of its own for the tests of the protocol, and requests for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from models.spec import Coding
from models.spec.network import Network
from tests.bundles import publish
from tests.networks import network_of, toy
from tests.service.conftest import Process, running

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/toy/infer"


def integrator() -> Network:
    """Two inputs into two neurons that never fire: the last membrane is the sum of what came in."""
    return network_of(
        [{"type": "I", "name": "out"}],
        {},
        input={"shape": [2], "low": -8, "high": 8},
        time_steps=2,
        readout="last_membrane",
        labels=["left", "right"],
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, digits_like: Network) -> Iterator[Process]:
    """The toy, a rate-coded one, one that takes spikes, one that reads out membranes and a larger one."""
    root: Path = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    publish(root, toy(Coding.RATE, time_steps=16), "rate")
    publish(root, toy(Coding.SPIKES), "spikes")
    publish(root, integrator(), "integrator")
    publish(root, digits_like, "digits")
    with running(root, "--default-model", "toy", until="listening") as process:
        for _ in range(5):
            process.wait_for("model_ready")
        yield process
        assert process.stop() == 0  # with its log read to the end


@pytest.fixture
def http(service: Process) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=service.url, timeout=60) as client:
        yield client


def request(values: Any, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """Return an infer request with `values` as JSON."""
    array = np.asarray(values)
    tensor = {"name": "inputs", "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}
    return {"inputs": [tensor], **more}


def binary_request(array: NDArray[Any], datatype: str = "FP32", **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an infer request with `array` as bytes."""
    blob = array.tobytes()
    tensor = {"name": "inputs", "shape": list(array.shape), "datatype": datatype}
    header = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(blob)}}], **more}).encode()
    return header + blob, {HEADER: str(len(header))}


def outputs(answer: httpx.Response) -> dict[str, Any]:
    """Return the outputs of an answer by name, each nested as its shape says, whether JSON or bytes."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(HEADER, len(answer.content)))
    blobs, found = answer.content[length:], {}
    for output in json.loads(answer.content[:length])["outputs"]:
        if "data" in output:
            values = np.array(output["data"], object)
        else:
            size = output["parameters"]["binary_data_size"]
            blob, blobs = blobs[:size], blobs[size:]
            values = np.array(_values(blob, output["datatype"]), object)
        found[output["name"]] = values.reshape(output["shape"]).tolist()
    assert blobs == b""
    return found


def _values(blob: bytes, datatype: str) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(blob, {"INT64": "<i8", "FP32": "<f4"}[datatype]).tolist()
    texts = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "little")
        texts.append(blob[4:end].decode())
        blob = blob[end:]
    return texts
