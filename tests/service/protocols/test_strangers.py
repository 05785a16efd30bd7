"""A stranger's load changes no answer of somebody else's graph, whatever the graph does with a batch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.service.catalog.cost import Cost
from tests.external import contract, publish, scores
from tests.mixing import TAILS, mixing
from tests.service.asgi import Client, slow, started

REQUESTS = 24


def bodies() -> list[dict[str, Any]]:
    """Return requests of one to three samples, some with the range's ends among them."""
    random = np.random.default_rng(3)
    ends = ([[0.0, 0.0]], [[1.0, 1.0]], [[1.0, 0.0], [0.25, 0.5]])
    drawn = [random.integers(0, 17, (1 + index % 3, 2)) / 16 for index in range(REQUESTS - len(ends))]
    return [{"inputs": samples} for samples in (*ends, *(each.tolist() for each in drawn))]


async def answers(client: Client, name: str, asked: list[dict[str, Any]]) -> list[Any]:
    path = f"/models/{name}/predict"
    return [answer.json["predictions"] for answer in await asyncio.gather(*(client.post(each, path) for each in asked))]


def test_each_client_gets_the_answer_of_a_lone_request(tmp_path: Path) -> None:
    names = {f"graph{number}": tail for number, tail in enumerate(TAILS)}
    for name, tail in names.items():
        publish(tmp_path, mixing(tail), contract(scores="values"), name)

    async def ask() -> None:
        async with started(tmp_path, threads=2) as client:
            alone = {name: [(await answers(client, name, [body]))[0] for body in bodies()] for name in names}
            beside = await asyncio.gather(*(answers(client, name, bodies()) for name in names))
            assert dict(zip(names, beside, strict=True)) == alone

    asyncio.run(ask())


@pytest.mark.parametrize(("promised", "runs"), [(False, [1, 1, 2, 1]), (True, [1, 4])])
def test_only_a_graph_whose_author_promised_it_shares_a_run(tmp_path: Path, promised: bool, runs: list[int]) -> None:
    publish(tmp_path, scores(), contract(independent_rows=promised))
    asked = [{"inputs": [[0.5, 0.25]] * samples} for samples in (1, 1, 2, 1)]

    async def ask() -> None:
        async with started(tmp_path, threads=1) as client:
            alone = [(await client.post(body)).json for body in asked]
            held = slow(client.model())
            client.queue().cost = Cost(1e-9, 0, 0)
            first = asyncio.create_task(client.post(asked[0]))
            await held.begun()
            waiting = [asyncio.create_task(client.post(body)) for body in asked[1:]]
            held.go_on.release(4)
            assert [(await each).json for each in (first, *waiting)] == alone
            assert [samples for samples, _ in held.runs] == runs

    asyncio.run(ask())
