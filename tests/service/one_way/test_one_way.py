"""A request has one way: its answer, id, headers, counts and log line are the same promise whatever carried it.

A state machine asks a real server, one that traces, and beside each the app under uvicorn's own HTTP, by every media
type and protocol, alone and many at once, while versions come, are replaced and go. What is odd is answered byte for
byte as the app answers it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations_with_replacement, product
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from spikeserve.plugins.grpc import ordinary
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.rows import RowReader
from spikeserve.service.inference.protocols.native.endpoint import NativeEndpoint
from spikeserve.service.inference.scheduling import frames
from spikeserve.service.inference.scheduling.pipeline import Pipeline
from spikeserve.service.process.connections import OrdinaryRequest, cancel_requests
from spikeserve.service.telemetry import logs
from tests.service.asgi import until
from tests.service.one_way.machine import MAX_QUEUE, OneWay, publish
from tests.service.one_way.model import (
    APP,
    DIGEST,
    MAX_BODY,
    NETWORKS,
    OWN,
    TWICE,
    USUAL,
    Ask,
    faults_of,
    odd_asks,
)
from tests.service.one_way.server import Answer, Log, Server, receive
from tests.service.telemetry.test_tracing import collecting

NO_SHRINKING = [Phase.generate]  # which would take minutes
MAX_KNOWN = 16  # here, of heads and of frames
CALL = Ask(kind="raw FP32")


@pytest.fixture(scope="module", params=["ours", "traced"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ...]]:
    """Our server, with traces of which clients ask for some or without, and uvicorn's of the same app."""
    root = tmp_path_factory.mktemp("repository")
    for name in NETWORKS:
        publish(root, name, 1, 1)
    own: dict[str, Any] = {"api_keys": DIGEST, "allowed_origins": APP, "max_queue": MAX_QUEUE, "versions": "all"}
    own |= {"max_body_bytes": MAX_BODY, "max_values": 200, "threads": 1}
    own["log"] = Log()  # the same, as they never run at once
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patched:
        patched.setattr(frames, "MAX_KNOWN", MAX_KNOWN)
        plain = Server(root, plain=True, **own)
        stack.callback(plain.close)
        if request.param == "traced":
            patched.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
            own["collector"] = stack.enter_context(collecting())
        ours = Server(root, plain=False, **own)
        stack.callback(ours.close)
        yield ours, plain


@pytest.fixture
def machine(servers: tuple[Server, Server], restored_logging: None) -> OneWay:  # noqa: ARG001
    """The machine of these servers, where it begins."""
    OneWay.servers = servers
    logs.configure("info", servers[0].log)
    for server in servers:
        server.server.config.timeout_keep_alive = 600  # a busy machine takes long from one step to the next
    machine = OneWay()
    machine.begin()
    return machine


@pytest.mark.usefixtures("machine")
def test_a_request_has_one_way() -> None:
    own = settings(max_examples=settings().max_examples // 8, stateful_step_count=15, phases=NO_SHRINKING)
    run_state_machine_as_test(OneWay, settings=own)


@given(st.lists(odd_asks(), min_size=1, max_size=8), st.lists(st.floats(0, 1), max_size=3), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_odd_is_answered_byte_for_byte_as_the_application_answers_it(
    machine: OneWay, asks: list[Ask], cuts: list[float], ahead: bool
) -> None:
    machine.ids.clear()  # each example draws the same ids again, as Hypothesis seeds `random`
    usual = [replace(ask, odd=()) for ask in asks]
    for each in (usual, usual, asks, asks, asks):  # what is odd comes while its like is known, then so may it be itself
        machine.all(each, cuts, ahead=ahead)


OF_VALUES, PAIR, BITS = Ask("image"), Ask(kind="v2 FP32", samples=2), Ask(kind="bytes BOOL")
BY_COLUMNS = Ask("image", kind=">f8", samples=2)


@pytest.mark.parametrize(
    ("usual", "odd", "status"),
    [
        (Ask(), replace(Ask(), odd=(("in place", 0, TWICE[0]),)), 400),
        (Ask(), replace(Ask(), odd=(("in place", 0, TWICE[1]),)), 200),
        (Ask(), replace(Ask(), odd=(("header", 0, b"Accept: a"), ("header", 1, b"Accept: b"))), 200),
        (OF_VALUES, replace(OF_VALUES, samples=5, odd=(("byte", 1, b""),)), 413),  # 5 × 12 values at each of 4 steps
        (PAIR, replace(PAIR, odd=(("number", 1, b"1, 1, 1"),)), 400),  # three samples where the shape says two
        (BITS, replace(BITS, odd=(("in place", 0.995, b"\x02"),)), 400),  # its last byte, which is neither 0 nor 1
        *(
            (Ask("image", kind=kind, samples=2), Ask("image", kind=kind, samples=2, odd=(("end", cut, text),)), 400)
            for kind, cut, text in (
                *((each, 4 * 12, b"") for each in ("bytes FP32", "<f4")),  # a sample where the shape says two
                ("bytes INT32", 4, b"\1\0\0\1"),  # 2**24 + 1, which float32 has not
                *(("<f8", 0, bytes(4)), ("gzip", 0, b"x"), ("gzip", 4, b"")),
            )
        ),
        (CALL, replace(CALL, faults=("time",)), 400),
        (replace(BY_COLUMNS, odd=(("end", 8 * 24, bytes(8 * 24)),)), BY_COLUMNS, 200),  # zeros, by columns or by rows
    ],
)
def test_what_is_odd_is_answered_alike_behind_what_is_usual(machine: OneWay, usual: Ask, odd: Ask, status: int) -> None:
    assert machine.all([usual] * 3 + [odd], ahead=True) == {200, status}


def test_what_is_known_of_a_version_goes_with_it(machine: OneWay) -> None:
    asks = [Ask("toy", one, kind) for kind, one in product(USUAL, (None, 1, 2))]
    asks += [Ask(kind=kind, id="own") for kind in USUAL]
    for numbers, weights in (((1, 2), 0), ((1, 2), 1), ((2,), 0), ((1,), 0)):
        machine.publish_and_load("toy", numbers, weights)
        for _ in range(3):
            machine.all(asks)
    machine.unload("toy")
    machine.all(asks)


def test_what_nobody_asked_before_leaves_a_bounded_part(machine: OneWay) -> None:
    for first in (1, 2 * MAX_KNOWN):
        before, texts = machine.ours.stores(), ["x" * size for size in range(first, first + 2 * MAX_KNOWN)]
        asks = [Ask(headers=(("X-Own", each),)) for each in texts] + [Ask("m" + each) for each in texts]
        asks += [Ask(kind=kind, id=each) for kind in ("v2 FP32", "raw FP32") for each in texts]
        machine.all(asks * 2)
    sizes = machine.ours.stores()
    assert not {name: size for name, size in sizes.items() if size > max(MAX_KNOWN, before[name])}


def test_of_several_faults_the_first_in_this_order_is_told(machine: OneWay) -> None:
    pairs = [(kind, each) for kind in USUAL for each in combinations_with_replacement(faults_of(kind), 2)]
    for drains in (False, True):
        machine.all([Ask(kind=kind, faults=faults) for kind, faults in pairs], drains=drains)


@pytest.mark.parametrize(("of", "name"), [(RowReader, "read"), (NativeEndpoint, "decode"), (LoadedModel, "run")])
def test_a_failure_goes_the_full_way_for_each_request(machine: OneWay, of: type, name: str) -> None:
    never_seen = Ask(odd=(("byte", 0, b"\n "),))  # so that its frame is not known; that of the call is
    machine.all([CALL])
    machine.all([CALL])
    with patch.object(of, name, None):
        assert machine.all([never_seen, CALL] * 3) == {500 if name == "run" else 200}


HEADERS = (("Origin", OWN), ("X-Server-Timing", "1"))
CHEAP = ["charset", "gzip", "<f4", "<f8", "|u1", "<i4", "v2 FP64", "bytes UINT8"]
OF_EVENTS = Ask("pairs", kind="events", headers=HEADERS)
CALLS = [CALL, Ask(kind="typed FP32"), Ask("rate", kind="raw FP32", options=(("seed", 3),))]


@pytest.mark.parametrize(
    "ask",
    [*(Ask(kind=kind, samples=3, headers=HEADERS) for kind in CHEAP), OF_EVENTS, *CALLS],
    ids=lambda ask: ask.kind,
)
def test_no_request_of_numbers_is_dear_nor_a_call_from_its_third_message_on(machine: OneWay, ask: Ask) -> None:
    for _ in range(2 * ask.is_call):
        machine.all([ask])
    with patch.object(Pipeline, "answer", None):  # so that the application could not answer it
        answers = machine.ours.run(machine.ours.answers([ask] * 30))  # whose 90 samples are more than a batch has
    assert {answer.status for answer in answers} == {200}


def test_a_connection_closes_once_it_was_idle_for_all_its_time(machine: OneWay) -> None:
    async def ask(server: Server) -> None:
        reader, writer = await server.connect()
        server.server.config.timeout_keep_alive = 1
        for _ in range(3):
            writer.write(Ask().request())
            await receive(reader)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.4)  # together longer than it may be idle
        assert await reader.read() == b""
        writer.close()

    machine.ours.run(ask(machine.ours))


def test_a_request_that_waits_for_its_batch_at_the_end_of_the_grace_period_is_503(machine: OneWay) -> None:
    async def ask(server: Server) -> list[Answer]:
        answers = asyncio.create_task(server.answers([Ask()]))
        await until(lambda: server.inside.requests == 1)
        server.inside.drain()
        await asyncio.wait(await cancel_requests(server.server))
        return await answers

    with patch.object(machine.ours.tick, "answer_all"):  # so that none is answered
        (answer,) = machine.ours.run(ask(machine.ours))
    assert answer.status == 503


def test_a_body_that_comes_late_is_waited_for_and_a_client_that_leaves_is_counted_as_gone(machine: OneWay) -> None:
    content = Ask().request()

    async def ask(server: Server) -> Answer:
        def waits() -> bool:  # no longer than BODY_SECONDS for the body of an ordinary request
            requests = [getattr(each, "request", None) for each in server.server.server_state.connections]
            return server.inside.requests == 1 and not any(isinstance(each, OrdinaryRequest) for each in requests)

        reader, writer = await server.connect()
        writer.write(content[:-5])
        await until(waits)
        writer.write(content[-5:])
        answer = await receive(reader)
        writer.close()
        for condition in (lambda: server.inside.requests == 1, waits):
            _, writer = await server.connect()
            writer.write(content[:-1])
            await until(condition)
            writer.close()
            await until(lambda: not server.inside.requests)
        return answer

    for server in machine.servers:
        before = server.counts()
        assert server.run(ask(server)).status == 200
        assert (server.counts() - before)["http_requests", "POST", "/models/{name}/predict", "499"] == 2


@pytest.mark.parametrize(("sent", "status"), [(-5, 200), (0, 503)], ids=["due", "in a buffer"])
def test_what_has_come_when_the_server_stops_is_answered_and_closes(machine: OneWay, sent: int, status: int) -> None:
    content, connections = Ask().request(), machine.ours.server.server_state.connections

    async def ask(server: Server) -> Answer:
        reader, writer = await server.connect()
        writer.write(content[:sent])
        await until(lambda: server.inside.requests == 1 if sent else len(connections) == 1)
        server.inside.drain()
        writer.write(content[sent:])  # the server reads it in its next iteration
        for connection in list(connections):
            connection.shutdown()
        answer, end = await receive(reader), await reader.read()
        writer.close()
        return answer._replace(received=answer.received + end)

    answer = machine.ours.run(ask(machine.ours))
    assert (answer.status, answer.received.count(b"connection: close\r\n")) == (status, 1)


def test_a_call_that_is_cancelled_while_it_waits_is_withdrawn_and_logged_as_gone(machine: OneWay) -> None:
    async def leave(server: Server) -> None:
        with patch.object(server.tick, "answer_all"):  # so that it waits
            asked = server.begin(CALL)
            await until(lambda: bool(server.tick.waiting))
            asked.cancel()
            await until(lambda: not server.inside.requests)
        with patch.object(LoadedModel, "run", None):  # so that an answer would fail
            server.tick.answer_all()

    machine.all([CALL])
    machine.all([CALL])
    machine.ours.run(leave(machine.ours))
    assert [line["status"] for line in machine.ours.log.take()] == [499]


def test_calls_at_once_are_one_batch_and_none_waits_for_long(machine: OneWay, monkeypatch: pytest.MonkeyPatch) -> None:
    infer = machine.ours.protocols[0].infer  # type: ignore[attr-defined]
    machine.all([CALL])
    machine.all([CALL])

    async def crowd(server: Server) -> None:
        await until(lambda: not infer.all_in_flight)
        infer.expected = 2
        await server.begin(CALL)  # though one more is expected
        assert infer.expected == 1
        await until(lambda: not infer.all_in_flight)
        monkeypatch.setattr(ordinary, "GATHER_SECONDS", 3600)
        waiting = server.tick.waiting
        with patch.object(server.tick, "answer_all"):  # so that the first call is in flight while others come
            calls = [server.begin(CALL)]
            await until(lambda: len(waiting) == 1)
            calls += [server.begin(CALL) for _ in range(ordinary.MAX_GATHERED - 1)]
            await until(lambda: len(infer.gathered) == ordinary.MAX_GATHERED - 1)
            assert len(waiting) == 1
            calls.append(server.begin(CALL))
            await until(lambda: len(waiting) == 1 + ordinary.MAX_GATHERED)
        server.tick.answer_all()
        await asyncio.gather(*calls)

    machine.ours.run(crowd(machine.ours))
