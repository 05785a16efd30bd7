"""Two servers of one repository side by side: what is ready, what they are asked, and what their answers promise."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar
from unittest.mock import patch

import httpx
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.plugins.grpc.messages import ModelInferResponse
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.inference.scheduling.batching import RUN_SECONDS
from tests.bundles import contents
from tests.plugins.grpc import rpc
from tests.service.infer_requests import outputs
from tests.service.one_way.model import FAULTS, NETWORKS, SAMPLED, Ask, asks, reference
from tests.service.one_way.server import Answer, Server

MAX_QUEUE = 150
NAMES = st.sampled_from(list(NETWORKS))
LOGGED = ("route", "status", "model", "version", "samples")
EXPECTED = ("http_requests", "model_requests", "samples", "requests_shed", "requests_expired")


def publish(root: Path, name: str, number: int, weights: int) -> None:
    """Publish a version in place of the one of that number, if there is one."""
    rmtree(root / name / str(number), ignore_errors=True)
    ModelRepository(root).publish(contents(NETWORKS[name][weights], name))


class OneWay(RuleBasedStateMachine):
    """What is ready, and what was asked: all that the answers and the counts of a server are made of.

    Our server and the app under uvicorn's own are asked the same, and have to answer, to log and to count the same.
    """

    servers: ClassVar[tuple[Server, Server]]

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
            server.log.take()
            server.spans()
        for name in NETWORKS:
            if self.ready.get(name) != {1: 1}:
                self.publish_and_load(name, (1,), 0)

    @rule(name=NAMES, numbers=st.sampled_from([(1,), (2,), (1, 2)]), weights=st.integers(0, 1))
    def publish_and_load(self, name: str, numbers: tuple[int, ...], weights: int) -> None:
        rmtree(self.root / name, ignore_errors=True)
        for number in range(1, numbers[-1] + 1):
            publish(self.root, name, number, (weights + number) % 2)
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
        cuts=st.lists(st.floats(0, 1), max_size=2),
        ahead=st.booleans(),
    )
    def ask(self, few: list[Ask], many: int, cuts: list[float], ahead: bool) -> None:
        few = few + self.asked[-2:]  # again, since what came before is known, of versions that may be others now
        self.asked = few
        self.all(few * max(1, many // len(few)), cuts, ahead=ahead)

    @rule(few=st.lists(asks(), min_size=1, max_size=3))
    def drain(self, few: list[Ask]) -> None:
        self.all(few, drains=True)

    @rule(more=st.integers(2, 4), kind=st.sampled_from(["json", "v2 FP32", "<f4"]))
    def overload(self, more: int, kind: str) -> None:
        """Ask more than may wait for one version, beside three of another model, where a run may have 50 samples."""
        if {"toy", "rate"} <= self.ready.keys():
            asks = [Ask(kind=kind)] * (MAX_QUEUE + more) + [Ask("rate", kind=kind)] * 3
            for server in self.servers:
                model = server.inside.catalog.get("toy")
                cost, model.cost = model.cost, Cost(RUN_SECONDS / 3 / 50, 0, 0)
                server.inside.forget()  # so that nothing is known of another cost
                with patch.object(model, "run", wraps=model.run) as run:
                    *_, counted = self.answered(server, asks, waits=True)
                # One may have begun to run before the others came; those that have turns never come at once.
                assert counted["requests_shed", "toy"] in (more, more - 1)
                if server is self.ours:  # a queue has the cost that it began with
                    assert max(call.args[0].batch for call in run.call_args_list) <= 50
                    assert server.log.most <= 64
                model.cost = cost
                server.inside.forget()

    def all(
        self, asks: list[Ask], cuts: Sequence[float] = (), *, ahead: bool = False, drains: bool = False
    ) -> set[int]:
        """Ask both servers, compare what they answer, log and count, and return the statuses."""
        told = []
        for server in self.servers:
            server.inside.drain(drains=drains)
            told.append(self.answered(server, asks, cuts, ahead=ahead))
            server.inside.drain(drains=False)
        (answers, *ours), (others, *theirs) = told
        assert [each.received for each in answers] == [each.received for each in others]
        assert ours == theirs
        return {each.status for each in answers}

    def answered(
        self, server: Server, asks: list[Ask], cuts: Sequence[float] = (), *, ahead: bool = False, waits: bool = False
    ) -> tuple[list[Answer], Counter[Any], Counter[tuple[str, ...]]]:
        """Ask all; return the answers and what was logged and counted, each as it was promised unless it is odd.

        Where more of the default model's wait than may, some may be shed.
        """
        before = server.counts()
        answers = server.run(server.answers(asks, cuts, ahead=ahead))
        counted, spans, lines = server.counts() - before, server.spans(), server.log.take()
        logged = Counter(tuple(map(line.get, LOGGED)) for line in lines)
        if any(ask.odd for ask in asks):
            return answers, logged, counted
        counts: Counter[tuple[str, ...]] = Counter()
        log: Counter[tuple[Any, ...]] = Counter()
        sampled: Counter[tuple[str, int]] = Counter()
        for ask, answer in zip(asks, answers, strict=True):
            fault, number, weights = ask.answer_of(self.ready, drains=server.inside.catalog.draining)
            status, sentence = ask.status(fault), FAULTS[fault][2] if fault else ""
            if waits and ask.name == "toy" and answer.status == 503:
                status, sentence = 503, f"model 'toy' has {MAX_QUEUE} requests waiting"
                counts["requests_shed", "toy"] += 1
            assert answer.status == status, (ask, answer.content)
            assert sentence in sentence_of(ask, answer), ask
            samples = self.check_numbers(ask, answer, weights) if status == 200 else None
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

    def check_numbers(self, ask: Ask, answer: Answer, weights: int) -> int:
        """Compare the numbers of an answer with the reference engine's; return how many samples are counted."""
        values, found = ask.values, outputs_of(ask, answer)
        expected = reference(ask.name, weights, values.tobytes(), len(values), ask.options)
        found = {name: found.get(name) for name in expected}
        found["probabilities"] = np.float32(found["probabilities"]).tolist()
        assert found == expected, ask
        return len(values)


def sentence_of(ask: Ask, answer: Answer) -> str:
    """Return the sentence of an answer, or nothing where it is none."""
    if answer.status == 200:
        return ""
    return answer.content.decode() if ask.is_call else "".join(json.loads(answer.content).values())


def outputs_of(ask: Ask, answer: Answer) -> dict[str, Any]:
    """Return the outputs of an answer, by what the protocol v2 calls them."""
    if ask.is_call:
        return rpc.outputs(ModelInferResponse.FromString(answer.content))
    if ask.is_v2:
        return outputs(httpx.Response(200, headers=answer.headers, content=answer.content))
    found: dict[str, list[Any]] = {}
    for prediction in json.loads(answer.content)["predictions"]:
        for name, value in prediction.items():
            found.setdefault(name, []).append(value if isinstance(value, list) else [value])
    return found
