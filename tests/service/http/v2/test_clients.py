"""Triton's client and perf_analyzer, against a service in a process of its own, beside what tests/contracts asks."""

import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.perf_analyzer import measured
from tests.serving import Process, running

with warnings.catch_warnings():  # what they warn of at import is theirs
    warnings.simplefilter("ignore")
    triton = pytest.importorskip("tritonclient.http", reason="the extra 'clients' is not installed")


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
            timeout=10**8,  # microseconds
            request_compression_algorithm=compression,
            response_compression_algorithm=compression,
        )
        assert result.get_response()["id"] == "a"
        found.append(result.as_numpy("probabilities").tolist())
    assert found == found[:1] * 6


def test_perf_analyzer_measures_it(service: Process, tmp_path: Path) -> None:
    formats = ["--input-tensor-format", "binary", "--output-tensor-format", "binary"]
    row = measured(tmp_path, "-u", service.url.removeprefix("http://"), *formats)
    assert float(row["Inferences/Second"]) > 0
