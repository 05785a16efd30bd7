"""A model's queue counts a request until work on it begins, or until it is over, however it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from spikeserve.service.inference.scheduling.query import SMALL_BODY
from spikeserve.service.inference.sessions.table import Usage
from tests.bundles import publish
from tests.held import by_requests
from tests.networks import toy
from tests.service.asgi import LEFT, Answered, Client, Held, settled, slow, started

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


class Shared:
    """One app for all examples, on one event loop; its only thread is held by a request while an example runs."""

    def __init__(self, root: Path) -> None:
        self.runner = asyncio.Runner()
        self.app = started(root, engine="reference", threads=1, max_batch=4, max_queue=4, max_sessions=2)
        self.client: Client = self.runner.run(self.app.__aenter__())
        self.held: Held = slow(self.client.model())

    def close(self) -> None:
        self.runner.run(self.app.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    root = tmp_path_factory.mktemp("repository")
    publish(root, toy())
    shared = Shared(root)
    yield shared
    shared.close()


asked = st.tuples(
    st.sampled_from(ASKED), st.booleans(), st.sampled_from(["leaves", "is cancelled", "has no time left"])
)


@hypothesis_settings(max_examples=25)
@given(st.integers(0, 2), st.lists(asked, max_size=12))
def test_the_depth_is_the_number_of_requests_that_wait_after_any_mix_of_ends(
    shared: Shared, waiting: int, mix: list[tuple[tuple[str, Any], bool, Ending]]
) -> None:
    client, held = shared.client, shared.held
    services = client.app.state.services

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
        while client.scheduler.began:
            held.go_on.release()  # of a run whose requests had all ended
            await asyncio.sleep(0)
        for semaphore in (held.go_on, held.entered):  # the next example begins as this one did
            while semaphore.acquire(blocking=False):
                pass
        assert depth == waiting
        assert [each.status for each in answers] == [200] * len(answers)
        assert not any(by_requests(services).values()), by_requests(services)
        services.places.end_all(name="toy")
        assert services.places.usage == Usage()

    shared.runner.run(example())


@pytest.mark.anyio
@pytest.mark.parametrize("long", [False, True])
async def test_refused_sequences_fill_no_queue(repository: Path, *, long: bool) -> None:
    async with started(repository, max_queue=3, max_sessions=1) as client:

        async def ask(**parameters: Any) -> int:
            content = json.dumps(tensor(**parameters)).encode().ljust(SMALL_BODY + 1 if long else 0)
            return (await client.call("POST", INFER, content, {}, asyncio.Event())).status

        assert [await ask(sequence_id=7) for _ in range(5)] == [400] * 5
        assert await ask(sequence_id=1, sequence_start=True) == 200
        assert [await ask(sequence_id=2, sequence_start=True) for _ in range(5)] == [503] * 5
        assert client.queue().depth == 0
        assert await ask(sequence_id=1, sequence_end=True) == 200


@pytest.mark.anyio
async def test_a_request_that_goes_on_with_a_replaced_version_leaves_both_queues_empty(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    async with started(tmp_path) as client:
        loader, old = client.app.state.services.loader, client.model()
        assert (await client.post(tensor(sequence_id=1, sequence_start=True), INFER)).status == 200
        publish(tmp_path, toy())
        await loader.load("toy")
        answer = await client.post(tensor(sequence_id=1, sequence_end=True), INFER)
        assert answer.json["model_version"] == "1"
        assert client.model() is not old
        assert [client.scheduler.queue(model).depth for model in (old, client.model())] == [0, 0]
