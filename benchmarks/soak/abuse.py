"""The first soak: hostile, mutated and documented requests over many connections."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any

import numpy as np

from benchmarks.serving.processes import Server
from benchmarks.soak.client import NoAnswer, post
from benchmarks.soak.documented import count_wrong
from benchmarks.soak.figures import Figure
from benchmarks.soak.hostile import hostile, mutated
from benchmarks.soak.networks import SMALL
from benchmarks.soak.questions import questions, tensor_of, wrong
from benchmarks.soak.scale import CONNECTIONS, MEANT, Scale, Tick, connect

KINDS = 4  # one request in so many is hostile; the others are mutated
HEADER_LENGTH = "Inference-Header-Content-Length"
NAMES = (SMALL.name, "digits", "braille")  # of the models that documented requests are for


async def hostile_requests(server: Server, scale: Scale, tick: Tick) -> list[Figure]:
    """Send all of them over many connections; then see whether sound ones are still answered."""
    asked = questions(SMALL, 32)
    rng = random.Random(20)  # noqa: S311  (the same requests each time)
    odd = hostile(asked[0].body)
    work = [
        (odd[index // KINDS % len(odd)].request, odd[index // KINDS % len(odd)].statuses)
        if index % KINDS == 0
        else _mutated(rng.choice(asked).body, index % KINDS, rng)
        for index in range(scale.hostile)
    ]
    statuses: Counter[int] = Counter()
    unmeant = not_listed = 0
    left = iter(work)

    async def client() -> None:
        nonlocal unmeant, not_listed
        async with connect(server) as connection:
            for request, expected in left:
                try:
                    status = (await connection.ask(request)).status
                except NoAnswer:
                    status = 0
                statuses[status] += 1
                unmeant += status >= 500 and status not in MEANT
                not_listed += status not in expected
                tick(statuses.total() / len(work))

    clients = asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    documented, undocumented = await asyncio.to_thread(count_wrong, server.url, NAMES, scale.documented)
    await clients
    name = "hostile requests"
    return [
        Figure(name, "kinds of hostile requests", len(odd)),
        Figure(name, "requests", statuses.total(), at_least=scale.hostile),
        Figure(name, "5xx but the meant 503 and 504", unmeant, at_most=0),
        Figure(name, "connections ended without an answer", statuses[0], at_most=0),
        Figure(name, "answers of another status than that kind's", not_listed, at_most=0),
        *(Figure(name, f"answers {status}", count) for status, count in sorted(statuses.items())),
        Figure(name, "requests made of the document", documented, at_least=1),
        Figure(name, "answers that the document does not have", undocumented, at_most=0),
        Figure(name, "wrong answers to sound requests afterwards", await wrong(server, asked), at_most=0),
    ]


def _mutated(sound: dict[str, Any], kind: int, rng: random.Random) -> tuple[bytes, frozenset[int]]:
    """Return a mutated request, of our own protocol or of the other as JSON or bytes, with the statuses it may get.

    Its head is sound, so that it is one request however the bytes fall.
    """
    path, tensor = f"/v2/models/{SMALL.name}/infer", tensor_of(sound)
    match kind:
        case 1:
            body = mutated(json.dumps(sound).encode(), rng)
            return post("/predict", body), frozenset({200, 400, 413, 422})
        case 2:
            body = mutated(json.dumps({"inputs": [tensor]}).encode(), rng)
            return post(path, body), frozenset({200, 400, 413})
        case _:
            blob = np.array(tensor.pop("data"), "<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(blob)}
            header = json.dumps({"inputs": [tensor]}).encode()
            body = mutated(header + blob, rng)
            return post(path, body, {HEADER_LENGTH: str(len(header))}), frozenset({200, 400, 413})
