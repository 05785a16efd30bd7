"""Other people's clients, against a service in a process of its own."""

import asyncio
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
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
    kserve = pytest.importorskip("kserve", reason=why)
    from tritonclient.utils import InferenceServerException

NAMES = ["spike_counts", "probabilities", "class_index", "label", "synaptic_operations"]


@pytest.fixture
def samples() -> NDArray[np.float32]:
    return np.random.default_rng(3).random((20, 64), np.float32)


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


def native(service: Process, values: NDArray[np.float32]) -> dict[str, Any]:
    """Return the native route's answer, by the names of the outputs."""
    answer = httpx.post(f"{service.url}/models/digits/predict", json={"inputs": values.tolist()}).json()
    return {name: [prediction[name] for prediction in answer["predictions"]] for name in NAMES}


def values_of(result: Any) -> dict[str, Any]:
    """Return one of Triton's results in the native answer's form."""
    found = {name: result.as_numpy(name) for name in NAMES}
    assert [found[name].dtype for name in NAMES] == [np.int64, np.float32, np.int64, object, np.int64]
    found["label"] = np.vectorize(lambda text: text.decode() if isinstance(text, bytes) else text)(found["label"])
    return {name: (array[:, 0] if array.shape[1] == 1 else array).tolist() for name, array in found.items()}


def triton_input(values: NDArray[np.float32], *, binary: bool) -> Any:
    tensor = triton.InferInput("inputs", list(values.shape), "FP32")
    return tensor.set_data_from_numpy(values, binary_data=binary)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritons_client_gets_what_the_native_route_says(
    service: Process, client: Any, samples: NDArray[np.float32], compression: str | None
) -> None:
    expected = native(service, samples)
    for binary_in, binary_out in product((False, True), (None, False, True)):
        asked = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in NAMES]
        result = client.infer(
            "digits",
            [triton_input(samples, binary=binary_in)],
            model_version="1",
            outputs=None if binary_out is None else asked,
            request_id="a",
            priority=1,
            timeout=10**6,
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        assert values_of(result) == expected
        assert result.get_response()["id"] == "a"


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


def test_tritons_client_shows_our_sentence(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"inputs\[0\]\[1\] is 11, expected 0 to 10"):
        client.infer("toy", [triton_input(np.array([[0, 11]], np.float32), binary=True)])
    with pytest.raises(InferenceServerException, match="model 'nobody' is not served here"):
        client.infer("nobody", [triton_input(np.array([[0, 1]], np.float32), binary=True)])


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


@pytest.mark.parametrize("binary", [False, True])
def test_kserves_client_gets_the_native_answer(service: Process, samples: NDArray[np.float32], binary: bool) -> None:
    async def ask() -> Any:
        client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
        try:
            assert await client.is_server_live(service.url)
            assert await client.is_server_ready(service.url)
            assert await client.is_model_ready(service.url, "digits")
            assert not await client.is_model_ready(service.url, "nobody")
            tensor = kserve.InferInput("inputs", list(samples.shape), "FP32")
            tensor.set_data_from_numpy(samples, binary_data=binary)
            parameters = {"binary_data_output": binary}
            request = kserve.InferRequest("digits", [tensor], request_id="k", parameters=parameters)
            return await client.infer(service.url, request, model_name="digits")
        finally:
            await client.close()

    response = asyncio.run(ask())
    found = {output.name: output.as_numpy() for output in response.outputs}
    expected = native(service, samples)
    assert response.id == "k"
    for name in ("spike_counts", "probabilities", "class_index", "synaptic_operations"):
        assert found[name].reshape(np.shape(expected[name])).tolist() == expected[name]


def test_perf_analyzer_measures_it(service: Process, tmp_path: Path) -> None:
    formats = ["--input-tensor-format", "binary", "--output-tensor-format", "binary"]
    row = measured(tmp_path, "-u", service.url.removeprefix("http://"), *formats)
    assert float(row["Inferences/Second"]) > 0
