"""A run stops once nobody waits for its answer, and its thread is free for others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bundles import publish
from tests.networks import toy
from tests.service.asgi import LEFT, RIGHT, busy, slow, started

ENDLESS, QUICK = {"inputs": [[1.0, 0.0]], "time_steps": 2**22}, {"inputs": [[0.5, 0.0]]}
HURRY = {"X-Request-Timeout-Ms": "50"}


@pytest.fixture
def loops(tmp_path: Path) -> Path:
    publish(tmp_path, toy(), "loops")
    return tmp_path


@pytest.mark.anyio
@pytest.mark.parametrize("threads", [1, 2])
async def test_a_loop_is_stopped_at_the_deadline_and_its_thread_is_free(loops: Path, threads: int) -> None:
    async with started(loops, engine="onnx", max_time_steps=2**22, threads=threads) as client:
        late = await asyncio.gather(*(client.post(ENDLESS, headers=HURRY) for _ in range(threads)))
        assert [answer.status for answer in late] == [504] * threads
        assert late[0].json == {"error": "model 'loops' did not answer within the time that the request had"}
        after = await asyncio.gather(*(client.post(QUICK) for _ in range(threads)))
        assert [answer.status for answer in after] == [200] * threads


@pytest.mark.anyio
async def test_of_many_samples_none_is_begun_after_the_deadline(loops: Path) -> None:
    async with started(loops, engine="onnx", max_time_steps=2**22, threads=1) as client:
        assert (await client.post({"inputs": [[1.0, 0.0]] * 50, "time_steps": 2**18}, headers=HURRY)).status == 504
        assert (await client.post(QUICK)).status == 200


@pytest.mark.anyio
async def test_a_loop_is_stopped_when_its_client_leaves(loops: Path) -> None:
    async with started(loops, engine="onnx", max_time_steps=2**22, threads=1) as client:
        running = slow(client.model())
        running.go_on.release(2)
        gone = asyncio.Event()
        left = asyncio.create_task(client.post(ENDLESS, left=gone))
        await running.begun()
        gone.set()
        assert (await left).status == 0
        assert (await client.post(QUICK)).status == 200


@pytest.mark.anyio
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
