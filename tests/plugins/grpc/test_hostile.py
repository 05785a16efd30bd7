"""Whatever comes to the port, the server goes on to answer others, and holds no more than its limits say."""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikeserve.plugins.grpc import messages
from spikeserve.plugins.grpc.methods import SERVICE
from tests.plugins.grpc.rpc import Rpc, address, infer_request, outputs
from tests.plugins.grpc.test_wire import REQUESTS
from tests.serving import Process

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # a frame of settings, with none
MIB = 2**20


def answers(service: Process) -> bool:
    """Whether both servers answer somebody else."""
    with Rpc(service) as other:
        found = outputs(other.call("ModelInfer", infer_request(np.array([[0.6, 2.0]]))))
    told = httpx.post(f"{service.url}/predict", json={"inputs": [[0.6, 2.0]]}).json()
    return bool(found["spike_counts"] == [[1, 3]] == [told["predictions"][0]["spike_counts"]])


def peak_bytes(service: Process) -> int:
    """Return the most memory that the process has taken so far."""
    (line,) = [
        line
        for line in Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 1000,
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        PREFACE + b"\xff" * 1000,
        PREFACE + SETTINGS + b"\0\0\4\1\4\0\0\0\1\xff\xff\xff\xff",  # headers that are no HPACK
        PREFACE + SETTINGS + b"\0\0\4\3\0\0\0\0\1\0\0\0\0" * 10_000,  # resets of a stream that was never opened
        PREFACE + SETTINGS * 10_000,
        PREFACE + SETTINGS + b"\0\0\x08\6\0\0\0\0\0\0\0\0\0\0\0\0\0" * 10_000,  # pings
    ],
    ids=["zeros", "http-1", "no-frames", "no-headers", "resets", "settings", "pings"],
)
def test_garbage_and_floods_of_frames_end_their_connection_alone(service: Process, sent: bytes) -> None:
    host, _, port = address(service).rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            connection.sendall(sent)
            with suppress(OSError):  # it may have been closed by now
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(2**16):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was closed while more was sent
    assert answers(service)


async def thousand(service: Process) -> set[StatusCode]:
    """Open 1,000 calls over eight connections that send no message; return the codes of those that were refused."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address(service), options=options) for _ in range(8)]
    names = ["ModelInfer", "ModelStreamInfer"]
    calls = [channels[n % 8].stream_stream(f"/{SERVICE}/{names[n // 8 % 2]}")() for n in range(1000)]
    refused: list[Any] = []
    async with asyncio.timeout(25):  # from 30 on, those that are open end as well
        while len(refused) < 900:  # 16 streams may stay open, and calls for half of the memory budget, which is 16
            refused = [call for call in calls if call.done()]
            await asyncio.sleep(0.01)
    assert await asyncio.to_thread(answers, service)
    codes = {await call.code() for call in refused}
    for channel in channels:
        await channel.close()
    return codes


def test_a_thousand_calls_that_never_send_hold_nobody_else_up(service: Process) -> None:
    assert asyncio.run(thousand(service)) == {StatusCode.UNAVAILABLE}
    assert peak_bytes(service) < 600 * MIB
    assert answers(service)


def test_a_message_that_is_much_too_large_takes_no_memory(service: Process, rpc: Rpc) -> None:
    assert answers(service)
    before = peak_bytes(service)
    request = infer_request(np.zeros((1, 2)), id="x")
    request.raw_input_contents[0] = bytes(128 * MIB)
    bomb = grpc.insecure_channel(
        address(service),
        options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)],
        compression=grpc.Compression.Gzip,
    )
    for channel in (rpc.channel, bomb):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/{SERVICE}/ModelInfer")(request.SerializeToString(), timeout=60)
        assert refused.value.code() is StatusCode.RESOURCE_EXHAUSTED
    bomb.close()
    assert peak_bytes(service) - before < 64 * MIB  # of 128
    assert answers(service)


def test_a_message_of_millions_of_parts_is_refused_before_it_is_parsed(service: Process, rpc: Rpc) -> None:
    # Eight million empty tensors are 16 MB; each takes some 100 bytes once it is parsed.
    assert answers(service)
    before = peak_bytes(service)
    for part in (b"\x2a\x00", b"\x32\x00", b"\x3a\x00", b"\x22\x00"):
        error = rpc.refused("ModelInfer", part * (8 * MIB - 100))
        assert error.code() is StatusCode.RESOURCE_EXHAUSTED
        assert error.details().startswith("the message has more than 256 fields")
    assert peak_bytes(service) - before < 128 * MIB


def test_values_that_are_too_many_for_their_shape_make_no_array(service: Process, rpc: Rpc) -> None:
    # Fifteen million varints of a byte would be 120 MB as an array.
    request = infer_request(np.zeros((1, 2)), datatype="INT64", raw=False)
    request.inputs[0].contents.ClearField("int64_contents")
    request.inputs[0].contents.int64_contents.extend([1] * (15 * MIB))
    assert answers(service)
    before = peak_bytes(service)
    error = rpc.refused("ModelInfer", request)
    assert error.details() == (f"inputs[0].contents.int64_contents holds {15 * MIB} values, expected 2 for shape 1×2")
    assert peak_bytes(service) - before < 80 * MIB


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REQUESTS)
def test_any_request_is_answered_or_refused_with_a_sentence(rpc: Rpc, request_: Any) -> None:
    request_.model_name, request_.model_version = "toy", ""
    error = rpc.refused("ModelInfer", request_)
    assert error.code() in (StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED)
    assert error.details()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["ModelInfer", "ModelMetadata", "ModelConfig"]), data=st.binary())
def test_any_bytes_are_answered_or_refused_with_a_sentence(rpc: Rpc, name: str, data: bytes) -> None:
    try:
        rpc.call(name, data)
    except grpc.RpcError as error:
        refused = {StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.RESOURCE_EXHAUSTED}
        assert error.code() in refused, error.details()  # noqa: PT017  (either is right)


def test_metadata_that_is_too_long_ends_its_call(service: Process, rpc: Rpc) -> None:
    error = rpc.refused("ServerLive", messages.ServerLiveRequest(), metadata=[("x-long", "x" * 100_000)])
    assert error.code() is StatusCode.RESOURCE_EXHAUSTED
    assert answers(service)
