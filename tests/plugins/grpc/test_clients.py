"""Triton's gRPC client, in a process of its own, beside what tests/contracts asks it; and perf_analyzer.

Streams of infer requests: answers as they are done, sequences in order, and an end that leaves nothing behind.
"""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc import StatusCode

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.plugins.grpc.call import AT_ONCE_SECONDS
from spikeserve.plugins.grpc.server import (
    AGE_SECONDS,
    IDLE_SECONDS,
    KEEPALIVE_ANSWER_SECONDS,
    KEEPALIVE_SECONDS,
    MAX_METADATA_BYTES,
)
from spikeserve.plugins.grpc.stream import MAX_IN_FLIGHT, STREAMS_SHARE
from spikeserve.service.inference.protocols.v2.parsing import MAX_CONTROL_BYTES
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.pages import block_with
from tests.plugins.grpc.inside import grpc_started
from tests.plugins.grpc.rpc import Open, Rpc, address, infer_request, outputs, serving_grpc
from tests.service.asgi import traced, until
from tests.service.perf_analyzer import measured
from tests.service.sessions.conftest import pairs
from tests.serving import ROOT, Process


@pytest.fixture(scope="module")
def triton(service: Process) -> dict[str, Any]:
    """What Triton's client got."""
    if find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed: the extra 'clients' has it")
    command = [sys.executable, "-m", "tests.plugins.grpc.triton_program", address(service)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tritons_client_reads_what_the_server_says_and_our_sentences(triton: dict[str, Any]) -> None:
    found = triton["blocking"]
    # Charges of 0.60, 0.90 and 1.05 are one spike, 2.0 fires at each of three steps.
    assert found["classes"] == [["3:1:right", "1:0:left"]]
    assert found["health"] == [True, True, True]
    assert found["metadata"] == [{"name": "inputs", "datatype": "FP32", "shape": ["-1", "64"]}]
    assert found["config"] == [{"name": "inputs", "data_type": "TYPE_FP32", "dims": ["64"]}]
    assert "sequence" in found["extensions"]
    assert found["index"] == ["digits", "pairs", "regression", "spikes", "toy"]
    assert "[StatusCode.INVALID_ARGUMENT] parameters" in found["load_config"]
    assert (found["unloaded"], found["loaded"]) == (["UNAVAILABLE"], True)


def test_tritons_stream_answers_all_and_a_sequence_in_its_order(triton: dict[str, Any]) -> None:
    # A unit spikes at every second event: the n-th request of one event has spiked n // 2 times.
    found = triton["stream"]
    sequence = [(int(name[1:]), counts) for name, counts in found if name.startswith("s")]
    assert sequence == [(number, [[(number + 1) // 2, 0]]) for number in range(20)]
    between = sorted(each for each in found if each[0].startswith("d"))
    assert between == sorted([f"d{n}", triton["blocking"]["infer"]] for n in range(20))
    (error,) = [sentence for name, sentence in found if name == "error"]
    assert "model 'nobody' is not served here" in error


def test_the_pages_client_gets_an_answer() -> None:
    if find_spec("tritonclient") is None:
        pytest.skip("tritonclient is not installed: the extra 'clients' has it")
    page = (ROOT / "docs/grpc.md").read_text()
    with serving_grpc(PRETRAINED, ready=2) as shipped:
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


TOY = infer_request(np.array([[0.6, 2.0]]))  # whose counts are 1 and 3
ONE = np.array([[[1, 0]]], np.float32)  # one step, with an event of the first unit


def counts(answer: Any) -> Any:
    assert answer.error_message == ""
    return outputs(answer.infer_response)["spike_counts"]


def sequence(number: int, array: Any = ONE, **parameters: Any) -> Any:
    return infer_request(array, "pairs", parameters={"sequence_id": number, **parameters})


def test_a_sequence_goes_on_over_a_stream_and_over_what_is_sent_beside_it(rpc: Rpc) -> None:
    # A unit spikes at every second event.
    stream = Open(rpc)
    assert counts(stream.ask(sequence(5, sequence_start=True))) == [[0, 0]]
    assert counts(stream.ask(sequence(5))) == [[1, 0]]
    assert outputs(rpc.call("ModelInfer", sequence(5)))["spike_counts"] == [[1, 0]]
    assert counts(stream.ask(sequence(5, sequence_end=True))) == [[2, 0]]
    assert "no such sequence of model 'pairs' is open" in stream.ask(sequence(5)).error_message
    stream.close()
    assert list(stream.answers) == []
    assert stream.answers.code() is StatusCode.OK


def test_requests_of_a_sequence_run_in_their_order_whatever_their_length(rpc: Rpc) -> None:
    # A long one, of 1,000 events in 16,000 bytes and an id of 1,000, is decoded on a thread; those behind wait for it.
    steps = np.array([[[1, 0]] * 1000], np.float64)
    long = infer_request(steps, "pairs", "FP64", id="x" * 1000, parameters={"sequence_id": 8})
    assert len(long.SerializeToString()) > SMALL_BODY
    sent = [sequence(8, ONE, sequence_start=True), *[long, sequence(8, ONE)] * 5]
    answers = [counts(answer) for answer in rpc.stream(sent)]
    # After n events there are n // 2 spikes: the events so far are 1, 1001, 1002, 2002, 2003, …
    events, expected = 1, [[[0, 0]]]
    for _ in range(5):
        for more in (1000, 1):
            events += more
            expected.append([[events // 2, 0]])
    assert answers == expected


def test_a_request_that_fails_is_answered_with_its_id_and_the_stream_goes_on(rpc: Rpc) -> None:
    stream = Open(rpc)
    failed = stream.ask(infer_request(np.array([[0, 11]]), id="bad"))
    assert failed.error_message == "inputs[0][1] is 11, expected 0 to 10"
    assert (failed.infer_response.id, failed.infer_response.model_name) == ("bad", "toy")
    assert counts(stream.ask(TOY)) == [[1, 3]]
    stream.close()


@pytest.mark.usefixtures("reference_engine")
async def test_open_streams_are_bounded_by_half_of_the_memory_budget_and_a_silent_one_ends(repository: Path) -> None:
    # Two of 1,000 bytes each are half of 4,000.
    async with grpc_started(repository, max_body_bytes=1000, max_pending_bytes=4000) as inside:
        streams = [inside.stream(), inside.stream()]
        for stream in streams:
            await stream.write(TOY)
            assert counts(await stream.read()) == [[1, 3]]
        refused = inside.stream()
        assert await refused.code() is StatusCode.UNAVAILABLE
        assert (await refused.details()).startswith("2 streams are open, expected fewer: each reserves max_body_bytes")
        assert dict(await refused.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        await streams[0].done_writing()
        assert await streams[0].code() is StatusCode.OK
        again = inside.stream()
        await again.write(TOY)
        assert counts(await again.read()) == [[1, 3]]
        streams[1].cancel()
        again.cancel()
    async with grpc_started(repository, session_idle_seconds=0.2) as inside:
        silent = inside.stream()
        assert await silent.code() is StatusCode.DEADLINE_EXCEEDED
        assert await silent.details() == "nothing was sent for 0.2 seconds"


@pytest.mark.usefixtures("reference_engine")
async def test_a_stream_that_waits_holds_nothing_of_the_message_before(repository: Path) -> None:
    async with grpc_started(repository) as inside:
        stream = inside.stream()
        await stream.write(TOY)
        assert counts(await stream.read()) == [[1, 3]]
        with traced() as taken:
            await stream.write(infer_request(np.zeros((2**18, 1))))  # of 1 MiB
            assert (await stream.read()).error_message.startswith("inputs[0].shape is [262144, 1], expected")
            await until(lambda: taken() < 2**19)
        await stream.done_writing()


@pytest.mark.usefixtures("reference_engine")
def test_a_stream_ends_when_the_server_drains(tmp_path: Path) -> None:
    publish(tmp_path, pairs(), "pairs")
    with serving_grpc(tmp_path) as service, Rpc(service) as rpc:
        stream = Open(rpc)
        assert counts(stream.ask(sequence(1, sequence_start=True))) == [[0, 0]]
        service.process.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            next(stream.answers)
        assert ended.value.code() is StatusCode.UNAVAILABLE
        assert ended.value.details() == "the server is shutting down; all requests that it has read were answered"
        assert service.ended() == 0


def test_sequences_over_http_and_grpc_are_the_same(service: Process, rpc: Rpc) -> None:
    tensor = {"name": "inputs", "shape": [1, 1, 2], "datatype": "FP32", "data": [1, 0]}
    body = {"inputs": [tensor], "parameters": {"sequence_id": 9, "sequence_start": True}}
    assert httpx.post(f"{service.url}/v2/models/pairs/infer", json=body).status_code == 200
    assert outputs(rpc.call("ModelInfer", sequence(9)))["spike_counts"] == [[1, 0]]
