"""What waits is bounded, leaves with its client or its time, and shares runs of the engine where that costs nothing.

A run stops once nobody waits for its answer, and its thread is free for others.
"""

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import create
from spikeserve.models.spec import Coding
from spikeserve.service.catalog import cost
from spikeserve.service.catalog.cost import Cost
from spikeserve.service.inference.scheduling import scheduler
from spikeserve.service.inference.scheduling.batching import policy_of
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.inference.scheduling.queue import Price
from spikeserve.service.inference.scheduling.scheduler import SHORT_BODY
from spikeserve.service.settings import Settings
from tests.bundles import publish
from tests.networks import toy
from tests.service.asgi import LEFT, RIGHT, Answered, busy, metric, settled, slow, started
from tests.service.infer_requests import INFER, asked


async def test_a_full_queue_is_503_at_once(repository: Path) -> None:
    # One worker: the first request runs, two more wait, and any other is one too many.
    async with busy(repository, max_queue=2, max_batch=1) as (client, held, first):
        accepted = [first, *(asyncio.create_task(client.post(LEFT)) for _ in range(2))]
        await settled()
        assert await metric(client, 'spikeserve_queue_depth{model="toy"}') == 2
        assert await metric(client, "spikeserve_worker_threads_busy") == 1
        assert await metric(client, "spikeserve_longest_run_seconds") > 0
        chunked = {"Content-Length": "9", "Transfer-Encoding": "chunked"}  # a body whose rest never comes
        unread = await client.call("POST", "/predict", b"{", chunked, asyncio.Event())
        for refused in (await client.post(LEFT), await client.post(asked(), INFER), unread):
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) > 0
            assert refused.json == {"error": "model 'toy' has 2 requests waiting, expected fewer than max_queue"}
        assert (unread.headers["connection"], client.reserved) == ("close", 0)
        held.go_on.release(3)
        assert [(await each).status for each in accepted] == [200] * 3
        assert await metric(client, 'spikeserve_queue_depth{model="toy"}') == 0
        assert await metric(client, 'spikeserve_requests_shed_total{model="toy"}') == 3
        assert await metric(client, "spikeserve_longest_run_seconds") == 0
    assert len(held.runs) == 3


async def test_a_client_that_has_left_is_never_computed(repository: Path) -> None:
    async with busy(repository, max_batch=1) as (client, held, first):
        gone = asyncio.Event()
        left = asyncio.create_task(client.post({"inputs": [[1, 0]], "time_steps": 7}, left=gone))
        last = asyncio.create_task(client.post(RIGHT))
        await settled()
        gone.set()
        assert (await left).status == 0
        assert await metric(client, 'spikeserve_queue_depth{model="toy"}') == 1
        held.go_on.release(2)
        assert [(await each).status for each in (first, last)] == [200, 200]
        assert await metric(client, 'spikeserve_requests_abandoned_total{model="toy"}') == 1
    assert held.runs == [(1, 3), (1, 3)]


async def test_what_happens_to_the_requests_of_a_model_that_is_gone_leaves_no_metrics_behind(repository: Path) -> None:
    async with started(repository, threads=1) as client:
        held = slow(client.model())
        gone = asyncio.Event()
        runs_on = asyncio.create_task(client.post(LEFT, left=gone))
        await held.begun()
        waits = asyncio.create_task(client.post(LEFT, left=gone))
        await settled()
        await client.loader.unload("toy")
        assert await metric(client, 'spikeserve_queue_depth{model="toy"}') == 1
        gone.set()
        assert [(await each).status for each in (runs_on, waits)] == [0, 0]
        held.go_on.release()
        assert "toy" not in (await client.get("/metrics")).json


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/predict", LEFT | {"time_steps": 7}, {"X-Request-Timeout-Ms": "1"}),
        (INFER, asked(time_steps=7, timeout=10**5), {}),  # microseconds
    ],
)
async def test_a_request_whose_time_is_over_is_504_and_never_computed(
    repository: Path, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    # A tenth of a second at most by the request, ten minutes by the server: who answers within one goes by the request.
    async with busy(repository, max_batch=1, request_timeout_ms=600_000) as (client, held, first):
        try:
            async with asyncio.timeout(60):
                late = await client.post(body, path, headers)
        finally:
            held.go_on.release()
        assert late.status == 504
        assert late.json == {"error": "model 'toy' did not answer within the time that the request had"}
        assert (await first).status == 200
        assert await metric(client, 'spikeserve_requests_expired_total{model="toy"}') == 1
    assert held.runs == [(1, 3)]


async def test_a_run_that_takes_longer_than_its_request_has_is_504(repository: Path) -> None:
    async with started(repository, threads=1, request_timeout_ms=1) as client:
        held = slow(client.model())
        for timeout in (0, 2**63 - 1):
            assert (await client.post(asked(timeout=timeout), INFER)).status == 504
        for headers in ({}, {"X-Request-Timeout-Ms": "600000"}):  # a request may have no more than the setting
            assert (await client.post(LEFT, headers=headers)).status == 504
        held.go_on.release(4)


async def test_a_time_that_is_none_is_400(repository: Path) -> None:
    async with started(repository) as client:
        for given in ("soon", "0", "-1", "1.5", ""):
            answer = await client.post(LEFT, headers={"X-Request-Timeout-Ms": given})
            assert (answer.status, "X-Request-Timeout-Ms" in answer.json["error"]) == (400, True)
        assert (await client.post(LEFT, headers={"X-Request-Timeout-Ms": "9" * 5000})).status == 200


@pytest.mark.parametrize("engine", ["event", "onnx"])
async def test_what_waits_goes_together_for_equal_steps_and_is_answered_as_alone(repository: Path, engine: str) -> None:
    # Dyadic weights and inputs: every engine's sums are exact, in a batch of any size.
    rng = np.random.default_rng(5)
    bodies: list[dict[str, Any]] = [
        {"inputs": (rng.integers(0, 80, (size, 2)) / 8).tolist(), "time_steps": steps}
        for size, steps in ((1, 3), (2, 3), (1, 8), (3, 3), (2, 8))
    ]
    bodies.append(bodies[0] | {"return": ["membrane"]})

    async with started(repository, threads=1, engine=engine) as client:
        alone = [(await client.post(body)).json["predictions"] for body in bodies]
        model = client.model()
        model.cost = client.queue().cost = Cost(1e-9)  # measured on a busy machine it might be anything
        held = slow(model)
        together = [asyncio.create_task(client.post(body)) for body in [RIGHT, *bodies]]
        await held.begun()
        held.go_on.release(10)
        assert [(await each).json["predictions"] for each in together[1:]] == alone
        assert held.runs == [(1, 3), (6, 3), (3, 8), (1, 3)]


RECORDED = LEFT | {"return": ["membrane"]}
# By what may run together, and what waits while one request runs: the runs that follow, each as samples and steps.
RUNS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], list[tuple[int, int]]]] = {
    "what is recorded runs alone, first or last": ({}, [RECORDED, LEFT, RIGHT, RECORDED], [(1, 3), (2, 3), (1, 3)]),
    "what would be too large waits": (
        {"max_batch": 4},
        [{"inputs": [[1, 0]] * samples} for samples in (3, 2, 2)],
        [(3, 3), (4, 3)],
    ),
    "a long one has a turn after three short ones": (
        {"max_batch": 3},
        [{"inputs": [[1, 0]] * 9}, *(LEFT | {"time_steps": steps} for steps in range(4, 10))],
        [(1, 4), (1, 5), (1, 6), (3, 3), (1, 7), (1, 8), (1, 9), (3, 3), (3, 3)],
    ),
}


@pytest.mark.parametrize("case", RUNS)
async def test_what_waits_shares_runs_that_are_bounded_and_in_turn(repository: Path, case: str) -> None:
    settings, bodies, runs = RUNS[case]
    async with busy(repository, **settings) as (client, held, first):
        client.queue().cost = Cost(1e-9)  # so that only samples bound a run
        waiting = []
        for body in bodies:
            waiting.append(asyncio.create_task(client.post(body)))
            await settled()
        held.go_on.release(1 + len(runs))
        assert [(await each).status for each in (first, *waiting)] == [200] * (1 + len(waiting))
    assert held.runs == [(1, 3), *runs]


@pytest.mark.parametrize("coding", list(Coding))
async def test_the_shards_of_a_request_are_encoded_as_all_of_it_with_its_faults(tmp_path: Path, coding: Coding) -> None:
    publish(tmp_path, toy(coding))
    steps, rng = [3] if coding.per_step else [], np.random.default_rng(4)
    samples = (rng.integers(0, 9, (10, *steps, 2)) / 8).tolist()
    wrong = [*samples[:7], (np.array(samples[7]) + 99).tolist(), *samples[8:]]
    found = []
    for most in (64, 3):
        async with started(tmp_path, max_batch=most) as client:
            asked = {"inputs": samples, "seed": 5, "return": ["raster", "membrane"]}
            found.append((await client.post(asked)).json["predictions"])
            refused = await client.post({"inputs": wrong})
            assert (refused.status, refused.json["error"].partition("[0]")[0]) == (422, "inputs[7]")
    assert found[0] == found[1]


async def test_a_short_body_is_decoded_while_a_long_one_is(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with started(repository, threads=1) as client:
        limits = client.model().limits
        decoding, go_on = threading.Event(), threading.Event()

        def waits(body: bytes) -> None:
            if len(body) > SHORT_BODY:
                decoding.set()
                assert go_on.wait(60)

        monkeypatch.setattr(limits, "check_delimiters", waits)

        def ask(length: int) -> asyncio.Task[Answered]:
            body = json.dumps(LEFT).encode().ljust(length)
            return asyncio.create_task(client.call("POST", "/predict", body, {}, asyncio.Event()))

        large = ask(SHORT_BODY + 1)
        assert await asyncio.to_thread(decoding.wait, 60)
        assert (await ask(SHORT_BODY)).status == 200
        assert not large.done()
        go_on.set()
        assert (await large).status == 200


@pytest.mark.parametrize("engine", ["event", "onnx"])
async def test_a_large_request_whose_client_has_left_is_computed_no_further(repository: Path, engine: str) -> None:
    async with started(repository, threads=1, engine=engine, max_batch=4) as client:
        held = slow(client.model())
        gone = asyncio.Event()
        split = asyncio.create_task(client.post({"inputs": [[1, 0]] * 10}, left=gone))
        await held.begun()
        last = asyncio.create_task(client.post({"inputs": [[0, 1]], "time_steps": 5}))
        await settled()
        gone.set()
        assert (await split).status == 0
        held.go_on.release(2)
        assert (await last).status == 200
        assert held.runs == [(4, 3), (1, 5)]


def long(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode().ljust(SMALL_BODY + 1)


async def test_so_much_is_read_ahead_and_the_short_goes_on(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two threads, and no more than a byte that is read: the second long body stays one until the first has its answer.
    monkeypatch.setattr(scheduler, "MAX_DECODED_BYTES", 1)
    async with started(repository, threads=2, max_batch=1) as client:
        held = slow(client.model())

        def ask(steps: int) -> asyncio.Task[Answered]:
            body = long(LEFT | {"time_steps": steps})
            return asyncio.create_task(client.call("POST", "/predict", body, {}, asyncio.Event()))

        first = ask(5)
        await held.begun()
        second = ask(6)
        await settled()
        short = asyncio.create_task(client.post(LEFT | {"time_steps": 7}))
        await held.begun()
        assert held.runs == [(1, 5), (1, 7)]
        assert len(client.scheduler.undecoded[Price.SHORT]) == 1
        held.go_on.release(3)  # the second may begin before both others have gone on
        assert [(await each).status for each in (first, short)] == [200, 200]
        await held.begun()
        assert (await second).status == 200
        assert client.scheduler.decoded_bytes == 0


async def test_a_few_events_of_a_large_raster_wait_as_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 140 samples of 1,000 steps and two inputs are 1.1 MB, of some 4 kB. There is no room for what is decoded.
    publish(tmp_path, toy(Coding.SPIKES))
    many = {"inputs": [{"t": [0, 999], "unit": [0, 1]}] * 140, "time_steps": 1000}
    async with started(tmp_path, threads=1) as client:
        alone = await client.post(many)
        monkeypatch.setattr(scheduler, "MAX_DECODED_BYTES", 0)
        held = slow(client.model())
        one = asyncio.create_task(client.post({"inputs": [{"t": [0], "unit": [0]}]}))
        await held.begun()
        waits = asyncio.create_task(client.post(many))
        await settled()
        assert len(client.scheduler.undecoded[Price.LONG]) == 1
        monkeypatch.undo()
        held.go_on.release(1 + 140)
        assert (await one).status == 200
        assert (await waits).json == alone.json


async def test_models_take_turns(repository: Path) -> None:
    publish(repository, toy(), "other")
    async with started(repository, threads=1, max_batch=1, default_model="toy") as client:
        held, other = slow(client.model("toy")), slow(client.model("other"))
        other.runs = held.runs
        busy = [asyncio.create_task(client.post(LEFT)) for _ in range(4)]
        await held.begun()
        quiet = asyncio.create_task(client.post({"inputs": [[1, 0]], "time_steps": 5}, "/models/other/predict"))
        await settled()
        other.go_on.release()
        held.go_on.release(4)
        assert [(await each).status for each in (*busy, quiet)] == [200] * 5
    assert held.runs == [(1, 3), (1, 3), (1, 5), (1, 3), (1, 3)]


@pytest.mark.parametrize(("took", "measured"), [((9, 0.03, 0.06, 0.03, 0.09), 0.03), ((9, 6), 6)])
def test_a_model_is_as_quick_as_its_quickest_run_and_slow_only_if_two_are(
    monkeypatch: pytest.MonkeyPatch, took: tuple[float, ...], measured: float
) -> None:
    clock = iter([1e-3 * time for each in took for time in (0, each)])  # milliseconds; a third run would have none
    monkeypatch.setattr(cost, "thread_time", clock.__next__)
    sample = DenseInputs(np.zeros((3, 1, 2), np.float32), 3)
    assert cost.seconds_per_step(create("reference", toy()), sample) == pytest.approx(1e-3 * measured / 3)


def test_few_large_states_share_a_run_and_many_small_ones() -> None:
    # 1 MiB of states stays in a core's cache.
    sizes = (2**30, 2**18, 90_000, 2**13)
    assert [policy_of(False, Settings()).max_states(size) for size in sizes] == [1, 4, 11, 64]
    assert policy_of(True, Settings()).max_states(2**30) == 64


async def test_what_arrives_while_a_run_goes_on_is_the_next_run_even_if_that_one_does_not_end(repository: Path) -> None:
    async with started(repository, threads=2, engine="onnx") as client:
        held, left = slow(client.model()), asyncio.Event()
        first = asyncio.create_task(client.post(LEFT, left=left))
        await held.begun()
        others = [asyncio.create_task(client.post(body)) for body in (LEFT, RIGHT)]
        await settled()
        assert held.runs == [(1, 3)]
        left.set()  # its only client: nobody waits for the first run
        assert (await first).status == 0
        await held.begun()
        assert held.runs == [(1, 3), (2, 3)]
        held.go_on.release(2)
        assert [(await each).status for each in others] == [200, 200]


@pytest.mark.parametrize(
    ("settings", "step"), [({"max_batch": 2}, 0.0), ({}, 8e-3)], ids=["by samples", "by the time that they take"]
)
async def test_a_second_run_starts_once_one_is_full(repository: Path, settings: dict[str, Any], step: float) -> None:
    # Two workers: the first request starts since nothing runs, the next two fill a run. It holds two samples, or as
    # many as take 50 ms: two of three steps, 48 ms, leave no room for a third.
    async with started(repository, threads=2, engine="onnx", **settings) as client:
        held = slow(client.model())
        client.queue().cost = Cost(step)
        first = asyncio.create_task(client.post(LEFT))
        await held.begun()
        second = asyncio.create_task(client.post(LEFT))
        await settled()
        assert held.runs == [(1, 3)]
        third = asyncio.create_task(client.post(RIGHT))
        await held.begun()
        assert held.runs == [(1, 3), (2, 3)]
        held.go_on.release(2)
        assert [(await each).status for each in (first, second, third)] == [200] * 3


async def test_threads_switch_sooner_while_a_long_body_is_decoded_and_no_longer(repository: Path) -> None:
    async with started(repository) as client:
        usual = sys.getswitchinterval()
        async with asyncio.timeout(60):
            assert await client.scheduler.code(Price.LONG, sys.getswitchinterval) == pytest.approx(5e-4)
        assert sys.getswitchinterval() == usual


ENDLESS, QUICK = {"inputs": [[1.0, 0.0]], "time_steps": 2**22}, {"inputs": [[0.5, 0.0]]}
HURRY = {"X-Request-Timeout-Ms": "50"}


@pytest.fixture
def loops(tmp_path: Path) -> Path:
    publish(tmp_path, toy(), "loops")
    return tmp_path


MANY = {"inputs": [[1.0, 0.0]] * 50, "time_steps": 2**18}  # of which none is begun after the deadline


@pytest.mark.parametrize(("threads", "asked"), [(1, ENDLESS), (2, ENDLESS), (1, MANY)], ids=["one", "two", "many"])
async def test_a_loop_is_stopped_at_the_deadline_and_its_thread_is_free(
    loops: Path, threads: int, asked: dict[str, Any]
) -> None:
    async with started(loops, engine="onnx", max_time_steps=2**22, threads=threads) as client:
        late = await asyncio.gather(*(client.post(asked, headers=HURRY) for _ in range(threads)))
        assert [answer.status for answer in late] == [504] * threads
        assert late[0].json == {"error": "model 'loops' did not answer within the time that the request had"}
        after = await asyncio.gather(*(client.post(QUICK) for _ in range(threads)))
        assert [answer.status for answer in after] == [200] * threads


async def test_a_run_is_stopped_only_once_nobody_of_those_in_it_waits(repository: Path) -> None:
    async with busy(repository) as (client, held, first):
        gone, also_gone = asyncio.Event(), asyncio.Event()
        sharing = [
            asyncio.create_task(client.post(body, left=left)) for body, left in ((LEFT, gone), (RIGHT, also_gone))
        ]
        held.go_on.release()
        assert (await first).status == 200
        await held.begun()
        alone, shared = held.stops
        assert alone is not None
        assert shared is not None
        assert held.runs == [(1, 3), (2, 3)]
        gone.set()
        assert (await sharing[0]).status == 0
        assert not shared.requested
        also_gone.set()
        assert (await sharing[1]).status == 0
        assert shared.requested
        assert not alone.requested
        held.go_on.release()
