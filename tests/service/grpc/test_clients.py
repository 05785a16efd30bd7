"""Other people's gRPC clients, in processes of their own: Triton's, KServe's, and perf_analyzer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.grpc.call import AT_ONCE_SECONDS
from spikeserve.service.grpc.server import (
    AGE_SECONDS,
    IDLE_SECONDS,
    KEEPALIVE_ANSWER_SECONDS,
    KEEPALIVE_SECONDS,
    MAX_METADATA_BYTES,
)
from spikeserve.service.grpc.stream import MAX_IN_FLIGHT, STREAMS_SHARE
from spikeserve.service.inference.protocols.v2.parsing import MAX_CONTROL_BYTES
from spikeserve.service.settings import Settings
from tests.pages import block_with
from tests.service.grpc.rpc import address, serving_grpc
from tests.service.perf_analyzer import measured
from tests.serving import ROOT, Process

SAMPLES = np.random.default_rng(3).random((20, 64), np.float32)  # which the programs send too
NAMES = ["spike_counts", "probabilities", "class_index", "label", "synaptic_operations"]


def told(service: Process, program: str, library: str) -> dict[str, Any]:
    """Run a program with the server's address, and return what it prints."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed: the extra 'clients' has it")
    command = [sys.executable, "-m", f"tests.service.grpc.{program}", address(service)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def native(service: Process) -> dict[str, Any]:
    """Return the native route's answer over HTTP, by the names of the outputs."""
    answer = httpx.post(f"{service.url}/models/digits/predict", json={"inputs": SAMPLES.tolist()}).json()
    return {name: [prediction[name] for prediction in answer["predictions"]] for name in NAMES}


@pytest.fixture(scope="module")
def triton(service: Process) -> dict[str, Any]:
    return told(service, "triton_program", "tritonclient")


def test_tritons_blocking_client_gets_what_the_native_route_says(service: Process, triton: dict[str, Any]) -> None:
    expected, found = native(service), triton["blocking"]
    assert found["infer"] == {"None": expected, "gzip": expected, "deflate": expected}
    # Charges of 0.60, 0.90 and 1.05 are one spike, 2.0 fires at each of three steps; over six steps it is two and six.
    assert (found["classes"], found["steps"]) == ([["3:1:right", "1:0:left"]], [[2, 6]])


def test_tritons_client_reads_what_the_server_says_and_our_sentences(triton: dict[str, Any]) -> None:
    found = triton["blocking"]
    assert found["health"] == [True, True, True]
    assert found["metadata"] == [{"name": "inputs", "datatype": "FP32", "shape": ["-1", "64"]}]
    assert found["config"] == [{"name": "inputs", "data_type": "TYPE_FP32", "dims": ["64"]}]
    assert "sequence" in found["extensions"]
    assert found["index"] == ["digits", "pairs", "regression", "spikes", "toy"]
    assert found["refused"] == "[StatusCode.INVALID_ARGUMENT] inputs[0][1] is 11, expected 0 to 10"
    assert found["unknown"].startswith("[StatusCode.NOT_FOUND] model 'nobody' is not served here")
    assert "[StatusCode.INVALID_ARGUMENT] parameters" in found["load_config"]
    assert (found["unloaded"], found["loaded"]) == (["UNAVAILABLE"], True)


def test_tritons_stream_answers_all_and_a_sequence_in_its_order(service: Process, triton: dict[str, Any]) -> None:
    # A unit spikes at every second event: the n-th request of one event has spiked n // 2 times.
    found = triton["stream"]
    sequence = [(int(name[1:]), counts) for name, counts in found if name.startswith("s")]
    assert sequence == [(number, [[(number + 1) // 2, 0]]) for number in range(20)]
    counts = native(service)["spike_counts"][:1]
    assert sorted(each for each in found if each[0].startswith("d")) == sorted([f"d{n}", counts] for n in range(20))
    (error,) = [sentence for name, sentence in found if name == "error"]
    assert "model 'nobody' is not served here" in error


def test_tritons_awaited_client_gets_the_same(service: Process, triton: dict[str, Any]) -> None:
    expected = native(service)
    assert triton["aio"] == {"ready": True, "infer": [expected] * 3, "stream": [expected] * 3}


def test_kserves_client_gets_the_native_answer(service: Process) -> None:
    found, expected = told(service, "kserve_program", "kserve"), native(service)
    del expected["label"]
    assert found == {
        "health": [True, True, True],
        "infer": [expected, expected],
        "control": ["spikes", True, "spikes", True],
    }


def test_the_pages_client_gets_an_answer() -> None:
    if find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed: the extra 'clients' has it")
    page = (ROOT / "docs/grpc.md").read_text()
    with serving_grpc(PRETRAINED) as shipped:
        while shipped.entries[-1].get("model") != "digits":
            shipped.wait_for("model_ready")
        program = block_with(page, "python", "localhost:8001").replace("localhost:8001", address(shipped))
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    # One sample: its class, then ten counts.
    assert re.fullmatch(r"\[\[\d\]\] \[\[(\d+ ?){10}\]\]\n", done.stdout), done.stderr


def test_the_page_has_the_bounds_that_there_are() -> None:
    page, settings = " ".join((ROOT / "docs/grpc.md").read_text().split()), Settings()
    for sentence in (
        f"an infer request's | {MAX_CONTROL_BYTES // 1024} KiB |",
        f"not there after {AT_ONCE_SECONDS:g} s",
        f"at most {MAX_IN_FLIGHT} of one stream",
        f"metadata of a call | {MAX_METADATA_BYTES // 1024} KiB |",
        f"| {IDLE_SECONDS} s; found within {KEEPALIVE_SECONDS + KEEPALIVE_ANSWER_SECONDS} s |",
        f"| some {AGE_SECONDS} s |",
        f"by default {settings.max_pending_bytes // STREAMS_SHARE // settings.max_body_bytes} may",
    ):
        assert sentence in page, sentence


def test_perf_analyzer_measures_it(service: Process, tmp_path: Path) -> None:
    row = measured(tmp_path, "-u", address(service), "-i", "grpc", "--streaming")
    assert float(row["Inferences/Second"]) > 0
