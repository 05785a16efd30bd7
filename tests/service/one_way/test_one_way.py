"""A request has one way: its answer, id, headers, counts and log line are the same promise whatever carried it.

A state machine asks a real server, one that traces, and beside each the app under uvicorn's own HTTP, by every media
type and protocol, alone and many at once, while versions come, are replaced and go. Both have to answer byte for byte
the same, and what is not odd as it was promised. That the app's numbers are right is held by tests/contracts.
"""

import asyncio
import gc
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import combinations_with_replacement, product
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import Inputs
from spikeserve.models.engines import Stop
from spikeserve.plugins.grpc import infer as grpc_infer
from spikeserve.service.catalog.cost import ITERATION_SECONDS, Cost
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.rows import RowReader
from spikeserve.service.inference.protocols.native.endpoint import NativeEndpoint
from spikeserve.service.inference.scheduling import frames
from spikeserve.service.inference.scheduling.batcher import MAX_REQUESTS
from spikeserve.service.inference.scheduling.scheduler import Scheduler
from spikeserve.service.process.connections import cancel_requests
from spikeserve.service.telemetry import logs
from tests.bundles import contents
from tests.service.asgi import settled, until
from tests.service.one_way.model import CHEAP, NETWORKS, ODD, SAMPLED, SETTINGS, USUAL, Ask, asks, faults_of, odd_asks
from tests.service.one_way.server import Answer, Log, Server, receive
from tests.service.telemetry.test_tracing import collecting

MAX_QUEUE = 150
MAX_KNOWN = 16  # here, of heads and of frames
NAMES = st.sampled_from(list(NETWORKS))
CUTS = st.lists(st.floats(0, 1), max_size=2)  # at which a connection's bytes are cut
LOGGED = ("route", "status", "model", "version", "samples")
EXPECTED = ("http_requests", "model_requests", "samples", "requests_shed", "requests_expired")
CALL = Ask(kind="raw FP32")


def publish(root: Path, name: str, weights: int) -> None:
    """Publish the next version of a model."""
    ModelRepository(root).publish(contents(NETWORKS[name][weights], name))


async def together(server: Server, asks: Sequence[Ask]) -> list[Answer]:
    """Ask all, of which too many are of the default model; go on once the last has come, and answer none before."""
    before, others = server.counts(), sum(ask.name != "toy" for ask in asks)
    with patch.object(server.batcher, "answer_all"):
        asking = asyncio.create_task(server.answers(asks))
        await until(lambda: len(server.batcher.waiting) == MAX_QUEUE + others)
        shed = len(asks) - len(server.batcher.waiting)
        await until(lambda: (server.counts() - before)["requests_shed", "toy"] == shed)
    server.batcher.answer_all()
    return await asking


class OneWay(RuleBasedStateMachine):
    """What is ready, and what was asked: all that the answers and the counts of a server are made of.

    Our server and the app under uvicorn's own are asked the same, and have to answer, to log and to count the same.
    """

    servers: ClassVar[tuple[Server, Server]]
    log: ClassVar = Log()  # of both, which never run at once

    def __init__(self) -> None:
        super().__init__()
        self.ours, _ = self.servers
        self.root, self.ready = Path(str(self.ours.services.settings.repository)), self.ours.ready
        self.ids: set[str] = set()
        self.asked: list[Ask] = []

    @initialize()
    def begin(self) -> None:
        for server in self.servers:  # which a test that failed may have left otherwise
            server.inside.drain(drains=False)
            server.inside.forget()
            server.spans()
        self.log.take()
        for name in NETWORKS:
            if self.ready.get(name) != {1: 1}:
                self.publish_and_load(name, (1,), 0)

    @rule(name=NAMES, numbers=st.sampled_from([(1,), (2,), (1, 2)]), weights=st.integers(0, 1))
    def publish_and_load(self, name: str, numbers: tuple[int, ...], weights: int) -> None:
        rmtree(self.root / name, ignore_errors=True)
        for number in range(1, numbers[-1] + 1):
            publish(self.root, name, (weights + number) % 2)
        self.ready.pop(name, None)
        for server in self.servers:
            server.run(server.inside.loader.load(name, numbers))
        self.ready[name] = {number: (weights + number) % 2 for number in numbers}

    @rule(name=NAMES, number=st.sampled_from([1, 2]))
    def retire(self, name: str, number: int) -> None:
        if number in self.ready.get(name, {}):
            for server in self.servers:
                server.run(server.inside.loader.set_versions(name, [number]))
            self.ready[name] = {number: self.ready[name][number]}

    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        if self.ready.pop(name, None):
            for server in self.servers:
                server.run(server.inside.loader.unload(name))

    @rule(
        few=st.lists(asks(), min_size=1, max_size=5),
        many=st.sampled_from([0, 0, 0, 3, 20, 130]),
        cuts=CUTS,
        ahead=st.booleans(),
        drains=st.sampled_from([False, False, False, True]),
    )
    def ask(self, few: list[Ask], many: int, cuts: list[float], ahead: bool, drains: bool) -> None:
        few = few + self.asked[-2:]  # again, since what came before is known, of versions that may be others now
        self.asked = few
        self.all(few * max(1, many // len(few)), cuts, ahead=ahead, drains=drains)

    @rule(more=st.integers(2, 4), kind=st.sampled_from(["json", "v2 FP32", "<f4"]))
    def overload(self, more: int, kind: str) -> None:
        """Ask more than may wait for one version, beside three of another model, where a run may have 50 samples."""
        if not {"toy", "rate"} <= self.ready.keys():
            return
        inside, runs = self.ours.inside, list[tuple[float, int]]()  # when its iteration began, and its samples
        model = inside.catalog.get("toy")

        def run(inputs: Inputs, *more: Any, **named: Any) -> Any:
            runs.append((self.ours.batcher.iteration.began, inputs.batch))
            return LoadedModel.run(model, inputs, *more, **named)

        never = patch.object(Cost, "took")  # so that it stays so dear
        with never, patch.multiple(model, cost=Cost(ITERATION_SECONDS / 3 / 50), run=run):
            inside.forget()  # so that nothing is known of another cost
            asks = [Ask(kind=kind)] * (MAX_QUEUE + more) + [Ask("rate", kind=kind)] * 3
            *_, counted = self.answered(self.ours, asks, waits=True)
        inside.forget()
        assert counted["requests_shed", "toy"] == more
        assert max(samples for _, samples in runs) <= 50
        together = Counter(began for began, samples in runs for _ in range(samples))
        assert max(together.values()) <= MAX_REQUESTS

    def all(
        self, asks: Sequence[Ask], cuts: Sequence[float] = (), *, ahead: bool = False, drains: bool = False
    ) -> set[int]:
        """Ask both servers, compare what they answer, log and count, and return the statuses."""
        told = []
        for server in self.servers:
            server.inside.drain(drains=drains)
            told.append(self.answered(server, asks, cuts, ahead=ahead and not drains))  # which answers one and closes
            server.inside.drain(drains=False)
        (answers, *ours), (others, *theirs) = told
        assert [each.received for each in answers] == [each.received for each in others]
        assert ours == theirs
        return {each.status for each in answers}

    def answered(
        self,
        server: Server,
        asks: Sequence[Ask],
        cuts: Sequence[float] = (),
        *,
        ahead: bool = False,
        waits: bool = False,
    ) -> tuple[list[Answer], Counter[Any], Counter[tuple[str, ...]]]:
        """Ask all; return the answers and what was logged and counted, each as it was promised unless it is odd.

        Where more of the default model's come than may wait, `waits` has them all come before the first is answered.
        """
        before = server.counts()
        answers = server.run(together(server, asks) if waits else server.answers(asks, cuts, ahead=ahead))
        counted, spans, lines = server.counts() - before, server.spans(), self.log.take()
        logged = Counter(tuple(map(line.get, LOGGED)) for line in lines)
        if any(ask.odd for ask in asks):
            return answers, logged, counted
        counts, log, sampled = Counter[tuple[str, ...]](), Counter[Any](), Counter[tuple[str, int]]()
        for ask, answer in zip(asks, answers, strict=True):
            status, sentence, number = ask.answer_of(self.ready, drains=server.inside.catalog.draining)
            if waits and ask.name == "toy" and answer.status == 503:
                status, sentence = 503, f"model 'toy' has {MAX_QUEUE} requests waiting"
                counts["requests_shed", "toy"] += 1
            assert (answer.status, sentence in answer.content.decode("latin-1")) == (status, True), (ask, answer)
            samples = ask.samples if status == 200 else None
            if server.collector and ("traceparent", SAMPLED) in ask.headers:
                sampled["POST" + f" {ask.route}" * (ask.route != "unmatched"), status] += 1
            own = answer.headers["x-request-id"]
            assert own == ask.id or (not ask.id and own not in self.ids), ask
            self.ids.add(own)
            log[ask.route, status, number and ask.name, number, samples] += 1
            counts["http_requests", "POST", ask.route, str(status)] += 1
            if number:
                counts["model_requests", ask.name, str(number), str(status)] += 1
                counts["samples", ask.name, str(number)] += samples or 0
            if status == 504:
                counts["requests_expired", ask.name] += 1
        assert sorted(line["request_id"] for line in lines) == sorted(each.headers["x-request-id"] for each in answers)
        assert (logged, spans) == (log, sampled)
        assert {key: count for key, count in counted.items() if key[0] in EXPECTED} == +counts
        return answers, logged, counted


@pytest.fixture(scope="module", params=["ours", "traced"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ...]]:
    """Our server, with traces of which clients ask for some or without, and uvicorn's of the same app."""
    root = tmp_path_factory.mktemp("repository")
    for name in NETWORKS:
        publish(root, name, 1)
    own: dict[str, Any] = SETTINGS | {"max_queue": MAX_QUEUE, "versions": "all", "threads": 1}
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
    logs.configure("info", OneWay.log)
    for server in servers:
        server.server.config.timeout_keep_alive = 600  # a busy machine takes long from one step to the next
    machine = OneWay()
    machine.begin()
    return machine


@pytest.mark.usefixtures("machine")
def test_a_request_has_one_way() -> None:
    few = settings().max_examples // 8  # and no shrinking, which would take minutes
    own = settings(max_examples=few, stateful_step_count=15, phases=[Phase.generate])
    run_state_machine_as_test(OneWay, settings=own)


@given(st.lists(odd_asks(), min_size=1, max_size=5), CUTS, st.booleans())
@settings(max_examples=settings().max_examples // 2, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_odd_is_answered_byte_for_byte_as_the_application_answers_it(
    machine: OneWay, asks: list[Ask], cuts: list[float], ahead: bool
) -> None:
    machine.ids.clear()  # each example draws the same ids again, as Hypothesis seeds `random`
    usual = [replace(ask, odd=()) for ask in asks]
    for each in (usual, usual, asks, asks, asks):  # what is odd comes while its like is known, then so may it be itself
        machine.all(each, cuts, ahead=ahead)


@pytest.mark.parametrize(("usual", "changes", "status"), ODD)
def test_what_is_odd_is_answered_alike_behind_what_is_usual(
    machine: OneWay, usual: Ask, changes: dict[str, Any], status: int
) -> None:
    assert machine.all([usual] * 3 + [replace(usual, **changes)], ahead=True) == {200, status}


def test_what_is_known_of_a_version_goes_with_it(machine: OneWay) -> None:
    asks = [Ask("toy", one, kind) for kind, one in product(USUAL, (None, 1, 2))]
    early = Ask(samples=3, seed=5, id="own", options=[("stop", "decided")])  # of which one is decided before its end
    asks += [replace(early, kind=kind) for kind in USUAL]
    for numbers, weights in (((1, 2), 0), ((1, 2), 1), ((2,), 0), ((1,), 0)):
        machine.publish_and_load("toy", numbers, weights)
        for _ in range(3):
            machine.all(asks)
        machine.all(asks, drains=True)
    machine.unload("toy")
    machine.all(asks)


def stores() -> Counter[str]:
    """Return the size of each collection that an object of the service has, the largest of those of one name."""
    objects = [each for each in gc.get_objects() if not isinstance(each, asyncio.AbstractEventLoop)]
    of_service = [each for each in objects if str(type(each).__module__).startswith("spikeserve.service")]
    named = [(type(each), *named) for each in of_service for named in getattr(each, "__dict__", {}).items()]
    stored = (dict, set, list, deque, bytearray)
    sized = [(f"{of.__qualname__}.{name}", each) for of, name, each in named if isinstance(each, stored)]
    return Counter({name: len(each) for name, each in sorted(sized, key=lambda size: len(size[1]))})


def test_what_nobody_asked_before_leaves_a_bounded_part(machine: OneWay) -> None:
    for first in (1, 2 * MAX_KNOWN):
        before, texts = stores(), ["x" * size for size in range(first, first + 2 * MAX_KNOWN)]
        asks = [Ask(headers=[("X-Own", each)]) for each in texts] + [Ask("m" + each) for each in texts]
        asks += [Ask(kind=kind, id=each) for kind in ("v2 FP32", "raw FP32") for each in texts]
        for _ in range(2):  # more at once than MAX_QUEUE might be refused
            machine.all(asks)
    assert not {name: size for name, size in stores().items() if size > max(MAX_KNOWN, before[name])}


def test_a_long_frame_does_not_stay_however_often_it_comes(machine: OneWay) -> None:
    for size in (1, frames.MAX_FRAME_BYTES):
        for _ in range(4):
            machine.all([Ask(odd=[(b"", 0, b" " * size)])])
    caches = [each for each in gc.get_objects() if isinstance(each, frames.RepeatCache)]
    keys = [key for cache in caches for key in cache.values if isinstance(key, tuple)]
    sizes = [sum(len(part) for part in key if isinstance(part, bytes)) for key in keys]
    assert 0 < max(sizes) <= frames.MAX_FRAME_BYTES


def test_a_batch_that_is_stopped_for_its_operations_runs_again_and_is_answered_alike(machine: OneWay) -> None:
    stopped = patch.object(Stop, "check", autospec=True, side_effect=Stop.check)
    with patch.object(Cost, "most_operations", return_value=1), stopped as checked:
        assert machine.all([*CHEAP, CALL] * 3) == {200}
    assert checked.called


def test_of_several_faults_the_first_in_this_order_is_told(machine: OneWay) -> None:
    pairs = [(kind, each) for kind in USUAL for each in combinations_with_replacement(faults_of(kind), 2)]
    asks = [Ask(kind=kind, faults=faults) for kind, faults in pairs]
    if machine.ours.collector:
        asks = [ask if ask.is_call else replace(ask, headers=[("traceparent", SAMPLED)]) for ask in asks]
    for drains in (False, True):
        machine.all(asks, drains=drains)


@pytest.mark.parametrize(
    ("of", "name", "ask", "statuses"),
    [
        (
            NativeEndpoint,
            "codec",
            Ask(odd=[(b"", 0, b"\n ")]),
            [500, 200],
        ),  # white space in front: its frame is not known
        (LoadedModel, "run", Ask(), [500, 500]),
        (RowReader, "read", Ask(), [200, 200]),  # by its decoder, on a thread
    ],
)
def test_a_failure_is_that_of_each_request_alone(
    machine: OneWay, of: type, name: str, ask: Ask, statuses: list[int]
) -> None:
    for _ in range(3):
        machine.all([CALL, Ask()])
    with patch.object(of, name, None):
        answers = machine.ours.run(machine.ours.answers([ask, CALL] * 3))
    assert [answer.status for answer in answers] == statuses * 3


@pytest.mark.parametrize("ask", CHEAP, ids=lambda ask: ask.kind)
def test_no_request_of_numbers_is_dear_nor_a_call_from_its_third_message_on(machine: OneWay, ask: Ask) -> None:
    for _ in range(2 * ask.is_call):
        machine.all([ask])
    with patch.object(Scheduler, "admit", None):  # so that no thread could answer it
        answers = machine.ours.run(machine.ours.answers([ask] * 30))  # whose 90 samples are more than a batch has
    assert {answer.status for answer in answers} == {200}


def test_a_connection_closes_once_it_was_idle_for_all_its_time(machine: OneWay) -> None:
    async def ask(server: Server) -> None:
        loop, ahead = asyncio.get_running_loop(), 0.0
        time = loop.time
        loop.time = lambda: time() + ahead  # type: ignore[method-assign]  # for as long as it runs
        reader, writer = await server.connect()
        for _ in range(3):
            writer.write(Ask().request())
            await receive(reader)
            ahead += 400  # together longer than it may be idle
            await settled()
            assert not reader.at_eof()
        ahead += 600
        assert await reader.read() == b""
        writer.close()

    machine.ours.run(ask(machine.ours))


def test_a_request_that_waits_for_its_batch_at_the_end_of_the_grace_period_is_503(machine: OneWay) -> None:
    async def ask(server: Server) -> list[Answer]:
        answers = asyncio.create_task(server.answers([Ask()]))
        await until(lambda: server.inside.requests == 1)
        server.inside.drain()
        await cancel_requests(server.server, 60)
        return await answers

    with patch.object(machine.ours.batcher, "answer_all"):  # so that none is answered
        (answer,) = machine.ours.run(ask(machine.ours))
    assert answer.status == 503


def test_no_request_begins_before_the_answer_to_the_one_before_though_its_bytes_are_known(machine: OneWay) -> None:
    async def ask(server: Server) -> list[int]:
        await until(lambda: not server.server.server_state.connections)
        reader, writer = await server.connect()
        await until(lambda: bool(server.server.server_state.connections))
        (connection,), answers = list[Any](server.server.server_state.connections), []
        for _ in range(3):  # from the third on they are known
            writer.write(Ask().request())
            answers.append(await receive(reader))
        with patch.object(server.batcher, "answer_all"):  # so that the first one waits
            writer.write(Ask().request())
            await until(lambda: len(server.batcher.waiting) == 1)
            writer.write(Ask().request())
            await until(lambda: len(server.batcher.waiting) > 1 or bool(connection.backlog.data))
            assert len(server.batcher.waiting) == 1
        server.batcher.answer_all()
        answers += [await receive(reader), await receive(reader)]
        writer.close()
        return [answer.status for answer in answers]

    assert machine.ours.run(ask(machine.ours)) == [200] * 5


def test_a_body_that_comes_late_is_waited_for_and_a_client_that_leaves_is_counted_as_gone(machine: OneWay) -> None:
    content = Ask().request()

    async def ask(server: Server) -> Answer:
        def waits() -> bool:
            return server.inside.requests == 1

        reader, writer = await server.connect()
        writer.write(content[:-5])
        await until(waits)
        writer.write(content[-5:])
        answer = await receive(reader)
        writer.close()
        _, writer = await server.connect()
        writer.write(content[:-1])
        await until(waits)
        writer.close()
        await until(lambda: not server.inside.requests)
        return answer

    for server in machine.servers:
        before = server.counts()
        assert server.run(ask(server)).status == 200
        counted = server.counts() - before
        assert counted["http_requests", "POST", "/models/{name}/predict", "499"] == 1
        assert counted["requests_abandoned", "toy"] == 1


def test_what_a_client_sent_in_full_is_answered_though_it_closed_its_sending_half(machine: OneWay) -> None:
    ordinary, other = Ask(), Ask(headers=[("X-Request-Timeout-Ms", "900")])  # which goes the full way

    async def ask(server: Server, sent: list[Ask], more: bytes) -> list[int]:
        reader, writer = await server.connect()
        writer.write(b"".join(each.request() for each in sent) + more)
        writer.write_eof()
        answers = [await receive(reader) for _ in sent]
        assert await reader.read() == b""
        writer.close()
        return [answer.status for answer in answers]

    for sent in ([ordinary], [other], [ordinary] * 3 + [other] * 3 + [ordinary]):
        for more in (b"", b"POST", ordinary.request()[:-1]):
            assert machine.ours.run(ask(machine.ours, sent, more)) == [200] * len(sent)


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
        with patch.object(server.batcher, "answer_all"):  # so that it waits
            asked = server.begin(CALL)
            await until(lambda: bool(server.batcher.waiting))
            asked.cancel()
            await until(lambda: not server.inside.requests)
        with patch.object(LoadedModel, "run") as run:
            server.batcher.answer_all()
        assert not run.called

    machine.all([CALL])
    machine.all([CALL])
    machine.ours.run(leave(machine.ours))
    assert [line["status"] for line in machine.log.take()] == [499]


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
        monkeypatch.setattr(grpc_infer, "GATHER_SECONDS", 3600)
        waiting = server.batcher.waiting
        with patch.object(server.batcher, "answer_all"):  # so that the first call is in flight while others come
            calls = [server.begin(CALL)]
            await until(lambda: len(waiting) == 1)
            calls += [server.begin(CALL) for _ in range(grpc_infer.MAX_GATHERED - 1)]
            await until(lambda: len(infer.gathered) == grpc_infer.MAX_GATHERED - 1)
            assert len(waiting) == 1
            calls.append(server.begin(CALL))
            await until(lambda: len(waiting) == 1 + grpc_infer.MAX_GATHERED)
        server.batcher.answer_all()
        await asyncio.gather(*calls)
        await until(lambda: not server.inside.held)

    machine.ours.run(crowd(machine.ours))
