"""An RPC is bounded in time and memory, and ends with its client, its deadline, or the server's grace period."""

import asyncio
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode

from spikeserve.plugins.grpc import call as calls
from spikeserve.plugins.grpc import messages, server
from spikeserve.plugins.grpc.methods import SERVICE
from spikeserve.plugins.grpc.stream import Stream
from tests.plugins.grpc.inside import GrpcInside, error_of, grpc_started
from tests.plugins.grpc.rpc import infer_request, outputs
from tests.service.asgi import metric, settled, slow
from tests.service.processes import until

pytestmark = pytest.mark.usefixtures("reference_engine")

REQUEST = infer_request(np.array([[0.6, 2.0]]))
LATER = [("x-request-timeout-ms", "50000")]  # than the call's own deadline: the shorter one counts
LONG = infer_request(np.zeros((20_000, 2)))
SLOW = infer_request(np.ones((1000, 2)), parameters={"time_steps": 1000})
LATE = "model 'toy' did not answer within the time that the request had"
REFUSED: list[tuple[str, Any, dict[str, Any], StatusCode, str]] = [
    ("ModelInfer", SLOW, {"metadata": [("x-request-timeout-ms", "1")]}, StatusCode.DEADLINE_EXCEEDED, LATE),
    (
        *("ModelInfer", REQUEST, {"metadata": [("x-request-timeout-ms", "soon")]}, StatusCode.INVALID_ARGUMENT),
        "X-Request-Timeout-Ms is 'soon', expected whole milliseconds, at least 1",
    ),
    ("ModelInfer", LONG, {}, StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    ("ModelInfer", LONG, {"compression": grpc.Compression.Gzip}, StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    (
        *("ModelReady", messages.ModelReadyRequest(name="x" * 2**16), {}, StatusCode.INVALID_ARGUMENT),
        "the message has 65540 bytes, expected at most 65536 here",
    ),
    *(
        (name, b"\xff\xff\xff", {}, StatusCode.INVALID_ARGUMENT, "the message is not a ")
        for name in ("ModelInfer", "ModelReady", "RepositoryModelLoad")
    ),
    ("ModelInfer", None, {}, StatusCode.INVALID_ARGUMENT, "the request has no message, expected one"),
    ("ModelTrain", REQUEST, {}, StatusCode.UNIMPLEMENTED, ""),
]


async def ended(inside: GrpcInside, name: str, message: Any, options: dict[str, Any]) -> Any:
    """Make a call with a message, again where grpc's client met the call's end while it wrote, and lost its status."""
    while True:
        call = inside.stream(name, **options)
        try:
            if message is not None:
                await call.write(message)
            await call.done_writing()
        except grpc.aio.AioRpcError as error:
            if error.details() == "Internal error from Core":
                continue
        except asyncio.InvalidStateError:  # it had ended before
            pass
        return call


async def test_what_is_refused_has_a_code_and_a_sentence_and_the_next_call_is_answered(repository: Path) -> None:
    async with grpc_started(repository, max_body_bytes=100_000) as inside:
        for name, message, options, code, sentence in REFUSED:
            call = await ended(inside, name, message, options)
            assert await call.code() is code, sentence
            assert sentence in await call.details()
        assert outputs(await inside.call("ModelInfer", REQUEST))["spike_counts"] == [[1, 3]]


@pytest.mark.parametrize("ended", ["call", "stream", "deadline"])
async def test_a_client_that_hangs_up_or_a_deadline_stops_the_run(repository: Path, ended: str) -> None:
    async with grpc_started(repository) as inside:
        held = slow(inside.client.model())
        call = (
            inside.stream()
            if ended == "stream"
            else inside.call("ModelInfer", REQUEST, timeout=3 if ended == "deadline" else None, metadata=LATER)
        )
        if ended == "stream":
            await call.write(REQUEST)
        await held.begun()
        if ended == "deadline":
            assert (await error_of(call)).code() is StatusCode.DEADLINE_EXCEEDED
        else:
            call.cancel()
        await until(lambda: not inside.server.calls.tasks)
        held.go_on.release()
        stop = held.stops[0]
        assert stop is not None
        assert stop.requested
        held.go_on.release()
        assert not inside.server.streams.open
        if ended == "call":
            assert await metric(inside.client, 'spikeserve_requests_abandoned_total{model="toy"}') == 1
            labels = f'method="POST",route="/{SERVICE}/ModelInfer",status="499"'
            assert await metric(inside.client, f"spikeserve_http_requests_total{{{labels}}}") == 1
        elif ended == "deadline":
            assert await metric(inside.client, 'spikeserve_requests_expired_total{model="toy"}') == 1


async def test_a_call_that_came_just_before_the_port_closes_is_answered(repository: Path) -> None:
    async with grpc_started(repository) as inside:
        held = slow(inside.client.model())
        call = inside.call("ModelInfer", REQUEST)
        await held.begun()
        stopping = asyncio.create_task(inside.server.stop(60))
        assert not (await asyncio.wait([stopping], timeout=2 * server.CLOSING_SECONDS))[0]
        held.go_on.release(2)
        assert outputs(await call)["spike_counts"] == [[1, 3]]
        await stopping


async def test_a_connection_whose_answer_was_read_stays_open(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[tuple[float, asyncio.TimerHandle]]()
    begin = loop.call_later

    def call_later(seconds: float, callback: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        timer = begin(seconds, callback, *arguments)
        if getattr(callback, "__func__", None) is calls.Call.hang_up:
            timers.append((seconds, timer))
        return timer

    monkeypatch.setattr(loop, "call_later", call_later)
    async with grpc_started(repository, client_seconds=50) as inside:
        assert outputs(await inside.call("ModelInfer", REQUEST))["spike_counts"] == [[1, 3]]
        await until(lambda: not inside.server.calls.tasks)
    assert [(seconds, timer.cancelled()) for seconds, timer in timers] == [(50, True)]


async def test_the_bytes_of_a_streams_messages_are_given_back_where_they_are_not_answered(repository: Path) -> None:
    async with grpc_started(repository) as inside:
        stream = inside.stream()
        for _ in range(3):
            await stream.write(b"\x07" * 70_000)  # no message: a field of wire type 7
            assert "a field has wire type 7" in (await stream.read()).error_message
        assert inside.reserved == inside.services.settings.max_body_bytes  # for messages to come
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        await until(lambda: not inside.reserved)
        # The client leaves before the task of its message has begun.
        gone: Any = SimpleNamespace(invocation_metadata=tuple, peer=str)
        long = infer_request(np.ones((10_000, 2))).SerializeToString()
        async with asyncio.TaskGroup() as tasks:
            before = asyncio.all_tasks()
            Stream(calls.Call("", gone, inside.server.calls, inside.services.budget))._begin(tasks, long)
            assert inside.reserved == len(long)
            (task,) = asyncio.all_tasks() - before
            task.cancel()
        assert inside.reserved == 0


async def test_a_message_that_does_not_come_ends_after_client_seconds(repository: Path) -> None:
    async with grpc_started(repository, client_seconds=0.3) as inside:
        stream = inside.stream("ModelInfer")
        assert await stream.code() is StatusCode.DEADLINE_EXCEEDED
        assert await stream.details() == "the message was not there after 0.3 seconds, expected all of it by then"
        assert inside.reserved == 0


async def test_messages_that_do_not_come_at_once_reserve_the_longest_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two of 1,000 bytes fit into 2,500; the third is refused. Small requests are answered all the same.
    async with grpc_started(repository, max_body_bytes=1000, max_pending_bytes=2500) as inside:
        streams = [inside.stream("ModelInfer"), inside.stream("ModelInfer")]
        await until(lambda: inside.reserved == 2000)
        third = inside.stream("ModelInfer")
        assert await third.code() is StatusCode.UNAVAILABLE
        assert "would have 3000 bytes with this one, expected at most 2500" in await third.details()
        monkeypatch.setattr(calls, "AT_ONCE_SECONDS", 20)  # since a busy machine may take long to read one
        assert outputs(await inside.call("ModelInfer", REQUEST))["spike_counts"] == [[1, 3]]
        await streams[0].write(REQUEST)
        assert outputs(await streams[0].read())["spike_counts"] == [[1, 3]]
        streams[1].cancel()
        await until(lambda: inside.reserved == 0)


async def test_a_long_message_is_counted_while_it_is_answered(digits_repository: Path) -> None:
    # 150 samples of 64 doubles are 76,800 bytes; an answer of their classes has less than 64 KiB, which do not count.
    async with grpc_started(digits_repository) as inside:
        held = slow(inside.client.model())
        request = infer_request(np.zeros((150, 64)), "digits", "FP64")
        request.outputs.add(name="class_index")
        call = inside.call("ModelInfer", request)
        await held.begun()
        assert inside.reserved == len(request.SerializeToString()) > 2**16
        call.cancel()
        await until(lambda: inside.reserved == 0)
        held.go_on.release(200)  # it may be in several shards


async def test_one_rpc_too_many_is_refused_but_for_probes(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_RPCS", 1)
    async with grpc_started(repository) as inside:
        stream = inside.stream("ModelInfer")
        await until(lambda: len(inside.server.calls.tasks) == 1)
        error = await error_of(inside.call("ModelInfer", REQUEST))
        assert (error.code(), error.details()) == (
            StatusCode.UNAVAILABLE,
            "2 RPCs are in progress with this one, expected at most 1",
        )
        assert (await inside.call("ServerLive")).live
        await stream.write(REQUEST)
        assert outputs(await stream.read())["spike_counts"] == [[1, 3]]


async def test_an_unexpected_error_is_internal_and_names_the_request(repository: Path) -> None:
    async with grpc_started(repository) as inside:
        inside.client.model().engine = None  # type: ignore[assignment]
        error = await error_of(inside.call("ModelInfer", REQUEST, metadata=[("x-request-id", "odd")]))
        assert (error.code(), error.details()) == (
            StatusCode.INTERNAL,
            "something went wrong here; the log has it as request odd",
        )


@pytest.mark.parametrize("name", ["ModelInfer", "ModelStreamInfer"])
async def test_a_client_that_does_not_read_its_answer_loses_its_connection(repository: Path, name: str) -> None:
    # The answer to 10,000 samples has 400 KB or more, and HTTP/2 lets the server send 64 KiB before the client reads.
    window = {"grpc.http2.lookahead_bytes": 2**16 - 1, "grpc.http2.bdp_probe": 0}
    async with grpc_started(repository, window, client_seconds=1) as inside:
        inside.client.model().limits.samples = 10_000
        unread = inside.stream(name)
        await unread.write(infer_request(np.zeros((10_000, 2))))
        await until(lambda: inside.reserved > 0)
        await until(lambda: not inside.server.calls.tasks)
        assert inside.reserved == 0
        assert await unread.code() is StatusCode.UNAVAILABLE


def digest(key: str) -> str:
    return f"sha256:{sha256(key.encode()).hexdigest()}"


def bearing(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


async def infer(inside: GrpcInside, **options: Any) -> StatusCode:
    try:
        await inside.call("ModelInfer", REQUEST, **options)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


async def test_keys_open_what_they_open_over_http(repository: Path) -> None:
    async with grpc_started(repository, api_keys=digest("alice"), admin_keys=digest("admin")) as inside:
        assert await infer(inside) is StatusCode.UNAUTHENTICATED
        assert await infer(inside, metadata=bearing("stranger")) is StatusCode.UNAUTHENTICATED
        assert await infer(inside, metadata=bearing("alice")) is StatusCode.OK
        assert await infer(inside, metadata=bearing("stranger") + bearing("alice")) is StatusCode.INVALID_ARGUMENT
        assert await infer(inside, metadata=bearing("admin")) is StatusCode.OK
        assert (await inside.call("ServerLive")).live
        assert (await inside.call("ServerReady")).ready
        load = messages.RepositoryModelLoadRequest(model_name="toy")
        for name in ("RepositoryModelLoad", "RepositoryModelUnload", "RepositoryIndex"):
            assert (await error_of(inside.call(name, load))).code() is StatusCode.UNAUTHENTICATED
            error = await error_of(inside.call(name, load, metadata=bearing("alice")))
            assert (error.code(), error.details()) == (
                StatusCode.PERMISSION_DENIED,
                "the key in the header Authorization is a client's, expected an admin's",
            )
        assert (await inside.call("RepositoryModelLoad", load, metadata=bearing("admin"))).isLoaded
        for name in ("ModelStreamInfer", "ModelInfer"):  # before a message is read, as this sends none
            assert await inside.stream(name).code() is StatusCode.UNAUTHENTICATED


async def test_probes_need_no_key_and_take_no_memory_from_those_who_have_one(repository: Path) -> None:
    # Probes need no key. Of ten that send nothing, four wait, and the others end; the budget of the bodies stays free.
    key = digest("alice")
    async with grpc_started(repository, api_keys=key, max_body_bytes=1000, max_pending_bytes=2500) as inside:
        silent = [inside.channel.stream_unary("/grpc.health.v1.Health/Check")() for _ in range(10)]
        codes = [asyncio.ensure_future(each.code()) for each in silent]
        await until(lambda: sum(code.done() for code in codes) == 6)
        assert {code.result() for code in codes if code.done()} == {StatusCode.UNAVAILABLE}
        assert inside.reserved == 0
        assert await infer(inside, metadata=bearing("alice")) is StatusCode.OK
        assert (await inside.call("ServerLive")).live
        for each in silent:
            each.cancel()
        await until(lambda: not inside.server.calls.tasks)
        assert inside.server.calls.probes.reserved == 0
        check = inside.channel.unary_unary("/grpc.health.v1.Health/Check")  # as Kubernetes does
        assert await check(b"") == b"\x08\x01"
        assert await check(b"\x0a" + bytes([len(SERVICE)]) + SERVICE.encode()) == b"\x08\x01"
        assert (await error_of(check(b"\x0a\x01x"))).code() is StatusCode.NOT_FOUND
        inside.drain()
        assert await check(b"") == b"\x08\x02"


async def test_an_old_connection_is_replaced_and_calls_go_on(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "AGE_SECONDS", 1)
    async with grpc_started(repository) as inside:
        held = slow(inside.client.model())
        call = inside.call("ModelInfer", REQUEST)
        await held.begun()
        async with asyncio.timeout(60):
            await inside.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        held.go_on.release(2)
        assert await call == await inside.call("ModelInfer", REQUEST)


async def test_a_stream_has_64_requests_in_flight_and_the_next_waits_until_one_is_answered(repository: Path) -> None:
    async with grpc_started(repository, threads=1) as inside:
        model = inside.client.model()
        held = slow(model)
        stream = inside.stream()
        for _ in range(70):
            await stream.write(REQUEST)
        await held.begun()
        await until(lambda: model.requests.count == 64)
        await settled()
        assert model.requests.count == 64
        held.go_on.release(70)
        await stream.done_writing()
        assert len([answer async for answer in stream]) == 70
        await until(lambda: not inside.server.calls.tasks)
        labels = 'model="toy",status="200",version="1"'
        assert await metric(inside.client, f"spikeserve_model_requests_total{{{labels}}}") == 70


async def test_a_connection_is_told_to_have_256_calls_and_ends_if_it_says_nothing(repository: Path) -> None:
    async with grpc_started(repository, client_seconds=0.2) as inside:
        port = inside.server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # The server's first frame is its settings: a header of nine bytes, then pairs of a number and its value.
        length = int.from_bytes((await reader.readexactly(9))[:3])
        told = dict(struct.iter_unpack(">HI", await reader.readexactly(length)))
        assert told[3] == 256  # SETTINGS_MAX_CONCURRENT_STREAMS
        async with asyncio.timeout(60):
            assert await reader.read() is not None  # up to its end, which comes by itself
        writer.close()
