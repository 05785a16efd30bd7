"""Other people's clients, against a service in a process of its own."""

import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.bundles import publish
from tests.networks import toy
from tests.service.perf_analyzer import measured
from tests.serving import Process, running

with warnings.catch_warnings():  # what they warn of at import is theirs
    warnings.simplefilter("ignore")
    why = "the extra 'clients' is not installed"
    triton = pytest.importorskip("tritonclient.http", reason=why)
    from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def service(models: Path) -> Iterator[Process]:
    """A process that serves them."""
    with running(models, "--default-model", "toy", ready=6) as process:
        yield process
        assert process.stop() == 0  # with its log read to the end


@pytest.fixture
def client(service: Process) -> Iterator[Any]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


def triton_input(values: NDArray[np.float32], *, binary: bool) -> Any:
    tensor = triton.InferInput("inputs", list(values.shape), "FP32")
    return tensor.set_data_from_numpy(values, binary_data=binary)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client_compresses_and_asks_for_bytes_or_json(client: Any, compression: str | None) -> None:
    samples = np.random.default_rng(3).random((20, 64), np.float32)
    found = []
    for binary_in, binary_out in product((False, True), (None, False, True)):
        asked = [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
        result = client.infer(
            "digits",
            [triton_input(samples, binary=binary_in)],
            outputs=None if binary_out is None else asked,
            request_id="a",
            priority=1,
            timeout=10**6,
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        assert result.get_response()["id"] == "a"
        found.append(result.as_numpy("probabilities").tolist())
    assert found == found[:1] * 6


def test_tritons_client_asks_for_classification_steps_and_seed(client: Any) -> None:
    # Charges of 0.60, 0.90 and 1.05 are one spike, 2.0 fires at each of three steps; over six steps it is two and six.
    values = np.array([[0.6, 2.0]], np.float32)
    asked = [triton.InferRequestedOutput("spike_counts", class_count=2)]
    result = client.infer("toy", [triton_input(values, binary=True)], outputs=asked, parameters={"time_steps": 3})
    assert result.as_numpy("spike_counts").tolist() == [[b"3:1:right", b"1:0:left"]]
    result = client.infer("toy", [triton_input(values, binary=True)], parameters={"time_steps": 6, "seed": 5})
    assert result.as_numpy("spike_counts").tolist() == [[2, 6]]


def test_tritons_client_reads_health_metadata_and_configuration(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("digits")["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 64]}]
    assert client.get_model_config("digits", "1")["input"][0]["dims"] == [64]


def test_tritons_client_loads_and_unloads(client: Any, models: Path) -> None:
    client.unload_model("rate")
    assert not client.is_model_ready("rate")
    publish(models, toy(), "rate")
    client.load_model("rate")
    assert client.is_model_ready("rate", "2")
    (listed,) = [each for each in client.get_model_repository_index() if each["name"] == "rate"]
    assert listed == {"name": "rate", "version": "2", "state": "READY", "reason": ""}
    with pytest.raises(InferenceServerException, match="parameters"):
        client.load_model("rate", config="{}")


def test_perf_analyzer_measures_it(service: Process, tmp_path: Path) -> None:
    formats = ["--input-tensor-format", "binary", "--output-tensor-format", "binary"]
    row = measured(tmp_path, "-u", service.url.removeprefix("http://"), *formats)
    assert float(row["Inferences/Second"]) > 0
