"""A request has one way: its answer, id, headers, counts and log line are the same promise whatever carried it.

A state machine asks a real server, one that traces, and the app under uvicorn's own HTTP, by every media type and
protocol, alone and many at once, while versions come, are replaced and go.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import combinations_with_replacement, product
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar
from unittest.mock import patch

import grpc
import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.plugins.grpc.call import CODES
from spikeserve.plugins.grpc.messages import ModelInferResponse
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.http.access import ANSWER_HEADERS
from spikeserve.service.inference.ordinary import frames
from spikeserve.service.inference.scheduling.batching import RUN_SECONDS
from spikeserve.service.telemetry import logs
from tests.bundles import contents
from tests.plugins.grpc import rpc
from tests.service.infer_requests import outputs
from tests.service.one_way.model import (
    APP,
    DIGEST,
    FAULTS,
    MAX_BODY,
    NETWORKS,
    SAMPLED,
    USUAL,
    Ask,
    asks,
    faults_of,
    reference,
)
from tests.service.one_way.server import Log, Server
from tests.service.telemetry.test_tracing import collector as collector

MAX_QUEUE, NO_SHRINKING = 150, [Phase.generate]  # which would take minutes
MAX_KNOWN = 16  # here, of heads and of frames
STATUSES = {code: status for status, code in CODES.items()}
NAMES = st.sampled_from(list(NETWORKS))


def publish(root: Path, name: str, number: int, weights: int) -> None:
    """Publish a version in place of the one of that number, if there is one."""
    rmtree(root / name / str(number), ignore_errors=True)
    ModelRepository(root).publish(contents(NETWORKS[name][weights], name))


class Answer:
    """A status, headers or trailers, outputs and a sentence, whatever carried them."""

    def __init__(self, ask: Ask, answer: Any) -> None:
        self.outputs: dict[str, Any] = {}
        self.sentence = ""
        if ask.is_call:
            is_error = isinstance(answer, grpc.aio.AioRpcError)
            self.status = STATUSES[answer.code()] if is_error else 200
            self.headers = dict(answer.trailing_metadata() if is_error else answer[1])
            self.sentence = answer.details() if is_error else ""
            self.outputs = {} if is_error else rpc.outputs(ModelInferResponse.FromString(answer[0]))
            return
        self.status, self.headers = answer.status_code, dict(answer.headers)
        if self.status != 200:
            (self.sentence,) = answer.json().values()
        elif ask.is_v2:
            self.outputs = outputs(answer)
        else:
            for prediction in answer.json()["predictions"]:
                for name, value in prediction.items():
                    self.outputs.setdefault(name, []).append(value if isinstance(value, list) else [value])


class OneWay(RuleBasedStateMachine):
    """What is ready, and what was asked: all that the answers and the counts of a server are made of."""

    server: ClassVar[Server]

    def __init__(self) -> None:
        super().__init__()
        self.services = self.server.services
        self.root = Path(str(self.services.settings.repository))
        self.ids: set[str] = set()
        self.asked: list[Ask] = []

    @initialize()
    def begin(self) -> None:
        self.server.reset()
        self.ready = self.server.ready
        for name in NETWORKS:
            if self.ready.get(name) != {1: 1}:
                self.publish_and_load(name, (1,), 0)

    @rule(name=NAMES, numbers=st.sampled_from([(1,), (2,), (1, 2)]), weights=st.integers(0, 1))
    def publish_and_load(self, name: str, numbers: tuple[int, ...], weights: int) -> None:
        rmtree(self.root / name, ignore_errors=True)
        for number in range(1, numbers[-1] + 1):
            publish(self.root, name, number, (weights + number) % 2)
        self.ready.pop(name, None)
        self.server.run(self.services.loader.load(name, numbers))
        self.ready[name] = {number: (weights + number) % 2 for number in numbers}

    @rule(name=NAMES, number=st.sampled_from([1, 2]))
    def retire(self, name: str, number: int) -> None:
        if number in self.ready.get(name, {}):
            self.server.run(self.services.loader.set_versions(name, [number]))
            self.ready[name] = {number: self.ready[name][number]}

    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        if self.ready.pop(name, None):
            self.server.run(self.services.loader.unload(name))

    @rule(
        data=st.data(),
        many=st.sampled_from([0, 0, 0, 3, 20, 130]),
        cuts=st.lists(st.floats(0, 1), max_size=2),
        ahead=st.booleans(),
    )
    def ask(self, data: st.DataObject, many: int, cuts: list[float], ahead: bool) -> None:
        few = data.draw(st.lists(asks(calls=not self.server.plain), min_size=1, max_size=5))
        few += self.asked[-2:]  # again, since what came before is known, of versions that may be others now
        self.asked = few
        self.all(few * max(1, many // len(few)), cuts, ahead=ahead)

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        few = data.draw(st.lists(asks(calls=not self.server.plain), min_size=1, max_size=3))
        self.services.catalog.draining = True
        self.all(few, [])
        self.services.catalog.draining = False

    @rule(more=st.integers(2, 4), kind=st.sampled_from(["json", "v2 FP32", "<f4"]))
    def overload(self, more: int, kind: str) -> None:
        """Ask more than may wait for one version, beside three of another model, where a run may have 50 samples."""
        if {"toy", "rate"} <= self.ready.keys():
            model = self.services.catalog.get("toy")
            cost, model.cost = model.cost, Cost(RUN_SECONDS / 3 / 50, 0, 0)
            self.services.catalog.changes += 1  # so that nothing is known of another cost
            with patch.object(model, "run", wraps=model.run) as run:
                shed = self.all([Ask(kind=kind)] * (MAX_QUEUE + more) + [Ask("rate", kind=kind)] * 3, [], waits=True)
            # One may have begun to run before the others came; those that have turns never come at once.
            assert shed in (more, more - 1)
            if not self.server.plain:  # a queue has the cost that it began with
                assert max(call.args[0].batch for call in run.call_args_list) <= 50
                assert self.server.log.most <= 64
            model.cost = cost
            self.services.catalog.changes += 1

    def all(self, asks: list[Ask], cuts: list[float], *, ahead: bool = False, waits: bool = False) -> int:
        """Ask all, and compare each answer, and what was counted and logged, with what was promised.

        Return how many of the default model's were shed, which they may be where more wait than may.
        """
        counts: Counter[str] = Counter()
        logged: Counter[tuple[Any, ...]] = Counter()
        spans: Counter[tuple[str, int]] = Counter()
        before = self.server.counts()
        answers = self.server.run(self.server.answers(asks, cuts, ahead=ahead))
        for ask, each in zip(asks, answers, strict=True):
            answer = Answer(ask, each)
            fault, number, weights = ask.answer_of(self.ready, drains=self.services.catalog.draining)
            status, sentence = ask.status(fault), FAULTS[fault][2] if fault else ""
            if waits and ask.name == "toy" and answer.status == 503:
                status, sentence = 503, f"model 'toy' has {MAX_QUEUE} requests waiting"
                counts['requests_shed_total{model="toy"}'] += 1
            assert answer.status == status, (ask, answer.sentence)
            assert sentence in answer.sentence, ask
            samples = self.check(ask, answer, weights) if status == 200 else None
            if self.server.collector and ("traceparent", SAMPLED) in ask.headers:
                spans["POST" + f" {ask.route}" * (ask.route != "unmatched"), status] += 1
            own = answer.headers["x-request-id"]
            assert own == ask.id or (not ask.id and own not in self.ids), ask
            self.ids.add(own)
            if not ask.is_call:
                self.check_headers(ask, answer)
            logged[own, ask.route, status, number and ask.name, number, samples] += 1
            counts[f'http_requests_total{{method="POST",route="{ask.route}",status="{status}"}}'] += 1
            if number:
                of = f'model="{ask.name}",version="{number}"'
                counts[f'model_requests_total{{model="{ask.name}",status="{status}",version="{number}"}}'] += 1
                counts[f"samples_total{{{of}}}"] += samples or 0
            if status == 504:
                counts[f'requests_expired_total{{model="{ask.name}"}}'] += 1
        lines = self.server.log.take()
        fields = ("request_id", "route", "status", "model", "version", "samples")
        assert Counter(tuple(line.get(name) for name in fields) for line in lines) == logged
        assert self.server.spans() == spans
        assert self.server.counts() - before == +counts
        return counts['requests_shed_total{model="toy"}']

    def check(self, ask: Ask, answer: Answer, weights: int) -> int:
        """Compare the numbers of an answer with the reference engine's; return how many samples are counted."""
        values = ask.values
        expected = reference(ask.name, weights, values.tobytes(), len(values), ask.options)
        found = {name: answer.outputs.get(name) for name in expected}
        found["probabilities"] = np.float32(found["probabilities"]).tolist()
        assert found == expected, ask
        return len(values)

    def check_headers(self, ask: Ask, answer: Answer) -> None:
        """Compare the headers of an answer with what its request asked for."""
        asked = dict(ask.headers) | ask.broken_headers
        extra = {
            name: value for name, value in answer.headers.items() if name.startswith("access-control") or name == "vary"
        }
        expected = {"vary": "Origin"}
        if "Origin" in asked:
            expected["access-control-expose-headers"] = ", ".join(ANSWER_HEADERS)
        if asked.get("Origin") == APP:
            expected["access-control-allow-origin"] = APP
        assert extra == expected, ask
        assert ("Connection", "close") not in ask.headers or answer.headers["connection"] == "close"
        timed = "X-Server-Timing" in asked and answer.status == 200
        assert ("server-timing" in answer.headers) == timed, ask


@pytest.fixture(params=["ours", "traced", "plain"])
def server(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restored_logging: None,  # noqa: ARG001
) -> Iterator[Server]:
    """Our server, ours with traces of which clients ask for some, and uvicorn's of the same app."""
    for name in NETWORKS:
        publish(tmp_path, name, 1, 1)
    monkeypatch.setattr(frames, "MAX_KNOWN", MAX_KNOWN)
    collector = None
    if request.param == "traced":
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        collector = request.getfixturevalue("collector")
    own: dict[str, Any] = {"api_keys": DIGEST, "allowed_origins": APP, "max_queue": MAX_QUEUE, "versions": "all"}
    own |= {"max_body_bytes": MAX_BODY}
    log = Log()
    logs.configure("info", log)
    server = Server(tmp_path, collector, log, plain=request.param == "plain", threads=1, **own)
    OneWay.server = server
    yield server
    server.close()


@pytest.mark.usefixtures("server")
def test_a_request_has_one_way() -> None:
    run_state_machine_as_test(OneWay, settings=settings(max_examples=7, stateful_step_count=15, phases=NO_SHRINKING))


def usual(server: Server) -> list[str]:
    """Return the kinds that it often has, with calls where it takes any."""
    return USUAL[: -2 if server.plain else None]


def test_what_is_known_of_a_version_goes_with_it(server: Server) -> None:
    machine = OneWay()
    machine.begin()
    asks = [Ask("toy", one, kind, id=own) for kind, one, own in product(usual(server), (None, 1, 2), ("", "own"))]
    for numbers, weights in (((1, 2), 0), ((1, 2), 1), ((2,), 0), ((1,), 0)):
        machine.publish_and_load("toy", numbers, weights)
        for _ in range(4):
            machine.all(asks, [])
    machine.unload("toy")
    machine.all(asks, [])


def test_what_nobody_asked_before_leaves_a_bounded_part(server: Server) -> None:
    machine = OneWay()
    machine.begin()
    for first in (1, 2 * MAX_KNOWN):
        before, texts = server.stores(), ["x" * size for size in range(first, first + 2 * MAX_KNOWN)]
        asks = [Ask(headers=(("X-Own", each),)) for each in texts] + [Ask(kind="v2 FP32", id=each) for each in texts]
        asks += [Ask("m" + each) for each in texts]
        asks += [] if server.plain else [Ask(kind="raw FP32", id=each) for each in texts]
        machine.all(asks * 2, [])
    assert not {name: size for name, size in server.stores().items() if size > max(MAX_KNOWN, before[name])}


def test_of_several_faults_the_first_in_this_order_is_told(server: Server) -> None:
    machine = OneWay()
    machine.begin()
    pairs = [(kind, each) for kind in usual(server) for each in combinations_with_replacement(faults_of(kind), 2)]
    for drains in (False, True):
        server.services.catalog.draining = drains
        machine.all([Ask(kind=kind, faults=faults) for kind, faults in pairs], [])
    server.services.catalog.draining = False
