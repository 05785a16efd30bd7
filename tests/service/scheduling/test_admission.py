"""A model's queue counts a request until work on it begins, or until it is over, however it ends.

What a run takes from a queue, whatever waits there.

What is small enough to run on the event loop is bounded by work, not by hope.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.service.catalog.cost import LOOP_SECONDS, WINDOW_OPERATIONS, Cost
from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.inference.sessions.table import Usage
from tests.bundles import publish, published
from tests.inside import Inside
from tests.networks import toy
from tests.service.asgi import LEFT, Answered, Client, Held, settled, slow, started
from tests.serving import serving

pytestmark = pytest.mark.usefixtures("reference_engine")

INFER = "/v2/models/toy/infer"
Ending = Literal["leaves", "is cancelled", "has no time left"]
TIMEOUT = {"X-Request-Timeout-Ms": "1"}


def tensor(**parameters: Any) -> dict[str, Any]:
    inputs = {"name": "inputs", "shape": [1, 2], "datatype": "FP32", "data": [1, 0]}
    return {"inputs": [inputs], "parameters": parameters}


# Each is refused, waits until it ends, or is answered: an engine that is held computes nothing.
ASKED: list[tuple[str, Any]] = [
    ("/predict", LEFT),
    ("/predict", {"inputs": [[1, 0]] * 9}),  # run in parts
    ("/predict", {"inputs": [[99, 0]]}),  # beyond the declared range
    ("/predict", {"inputs": [[1]]}),
    ("/predict", LEFT | {"return": ["membrane"]}),
    (INFER, tensor()),
    (INFER, tensor(timeout=1)),
    (INFER, tensor(sequence_id=1)),  # not open
    (INFER, tensor(sequence_id=2, sequence_start=True)),
    (INFER, tensor(sequence_id=2, sequence_end=True)),
    (INFER, tensor(sequence_id=3, sequence_start=True, sequence_end=True)),
    (INFER, tensor(sequence_id=4, sequence_start=True)),  # maybe one session too many
    (INFER, tensor(sequence_id="x" * 200)),
]


Shared = tuple[asyncio.Runner, Client, Held]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """One app for all examples, on one event loop; its only thread is held by a request while an example runs."""
    root = published(tmp_path_factory, toy=toy())
    app = started(root, engine="reference", threads=1, max_batch=4, max_queue=4, max_sessions=2)
    with asyncio.Runner() as runner:
        client = runner.run(app.__aenter__())
        yield runner, client, slow(client.model())
        runner.run(app.__aexit__(None, None, None))


asked = st.tuples(
    st.sampled_from(ASKED), st.booleans(), st.sampled_from(["leaves", "is cancelled", "has no time left"])
)


@given(st.integers(0, 2), st.lists(asked, max_size=12))
def test_the_depth_is_the_number_of_requests_that_wait_after_any_mix_of_ends(
    shared: Shared, waiting: int, mix: list[tuple[tuple[str, Any], bool, Ending]]
) -> None:
    runner, client, held = shared

    async def end(task: asyncio.Task[Answered], left: asyncio.Event, how: Ending) -> None:
        """End a request as its client does, unless it is answered already."""
        if how == "leaves":
            left.set()
        elif how == "is cancelled":
            task.cancel()
        await asyncio.wait([task])

    async def example() -> None:
        running = asyncio.create_task(client.post(LEFT))
        await held.begun()
        patient = [asyncio.create_task(client.post(LEFT)) for _ in range(waiting)]
        await settled()
        ends = []
        for (path, body), long, how in mix:
            content, left = json.dumps(body).encode().ljust(SMALL_BODY + 1 if long else 0), asyncio.Event()
            headers = TIMEOUT if how == "has no time left" else {}
            ends.append((asyncio.create_task(client.call("POST", path, content, headers, left)), left, how))
            await settled()
        for each in ends:
            await end(*each)
        depth = client.queue().depth
        held.go_on.release(1 + waiting)
        answers = [await each for each in (running, *patient)]
        while client.scheduler.began or client.scheduler.interpreter.works:
            held.go_on.release()  # of a run whose requests had all ended, as those of a body may that is being decoded
            await asyncio.sleep(0)
        for semaphore in (held.go_on, held.entered):  # the next example begins as this one did
            while semaphore.acquire(blocking=False):
                pass
        assert depth == waiting
        assert [each.status for each in answers] == [200] * len(answers)
        assert not client.held
        client.end_sessions()
        assert client.services.places.usage == Usage()

    runner.run(example())


async def test_a_request_that_goes_on_with_a_replaced_version_leaves_both_queues_empty(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    async with started(tmp_path) as client:
        old = client.model()
        assert (await client.post(tensor(sequence_id=1, sequence_start=True), INFER)).status == 200
        publish(tmp_path, toy())
        await client.loader.load("toy")
        answer = await client.post(tensor(sequence_id=1, sequence_end=True), INFER)
        assert answer.json["model_version"] == "1"
        assert client.model() is not old
        assert [client.scheduler.queue(model).depth for model in (old, client.model())] == [0, 0]


def test_a_sample_and_a_batch_run_on_the_event_loop_up_to_the_time_that_each_may_take() -> None:
    # A quarter of a sample's time for a step: four steps are just quick enough, and five samples take a batch's time.
    cost = Cost(seconds=LOOP_SECONDS / 4)
    assert [cost.room(steps) for steps in (1, 2, 4, 5)] == [20, 10, 5, 0]
    assert Cost(0.0).room(1) > 1_000_000


def test_a_window_runs_on_the_event_loop_up_to_the_time_and_the_operations_that_it_could_have() -> None:
    # Half of the operations at once and an eighth at each step: four steps, however fast they were measured.
    wide = WINDOW_OPERATIONS // 2, WINDOW_OPERATIONS // 8
    of_each = (Cost(0.0), wide), (Cost(LOOP_SECONDS / 4), (0, 0))
    assert [[cost.may_run_windows(dense, n) for n in (4, 5)] for cost, dense in of_each] == [[True, False]] * 2


def test_what_is_expected_follows_real_runs_up_and_down() -> None:
    cost = Cost(seconds=9.0)
    cost.took(6.0, operations=12, steps=6)  # a second each, of which an eighth counts, and two operations
    assert (cost.seconds, cost.operations) == (8.0, 2.0)
    for _ in range(40):
        cost.took(6.0, operations=60, steps=6)
    assert (cost.seconds, cost.operations) == pytest.approx((1.0, 10.0), rel=0.05)
    cost.took(17.0, operations=90, steps=1)
    assert (cost.seconds, cost.operations) == pytest.approx((3.0, 20.0), rel=0.05)


def test_a_batch_may_have_twice_the_operations_that_are_expected_and_some_more() -> None:
    assert Cost(0.0, operations=7).most_operations(samples=5, time_steps=3) == 2**24 + 210


def test_what_a_model_costs_is_measured_when_it_loads(repository: Path) -> None:
    with serving(repository) as client:
        model = Inside(client.app).model()
    assert 0 < model.cost.seconds < 1
