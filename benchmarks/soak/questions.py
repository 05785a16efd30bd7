"""Sound requests and their answers, as the reference engine has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.serving.networks import Served
from benchmarks.serving.processes import Server
from benchmarks.soak.client import post
from benchmarks.soak.scale import connect
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine


class Question(NamedTuple):
    """A sound request and the spike counts that answer it."""

    request: bytes
    body: dict[str, Any]
    counts: list[list[int]]


def questions(served: Served, number: int) -> list[Question]:
    """Return requests of one to three random samples, and different steps, with their answers."""
    rng = np.random.default_rng(number)
    engine = ReferenceEngine(served.network)
    made = []
    for index in range(number):
        samples = rng.integers(0, served.high + 1, (1 + index % 3, served.inputs)).astype(np.float32)
        time_steps = 5 + index % 21
        result, _ = engine.run(encode(samples, served.network.spec, time_steps))
        body = {"inputs": samples.astype(int).tolist(), "time_steps": time_steps}
        made.append(Question(post("/predict", json.dumps(body).encode()), body, result.spike_counts.tolist()))
    return made


def tensor_of(sound: dict[str, Any]) -> dict[str, Any]:
    """Return the input tensor of the protocol v2 with the samples of a native body."""
    samples = sound["inputs"]
    data = [value for sample in samples for value in sample]
    return {"name": "inputs", "shape": [len(samples), len(samples[0])], "datatype": "FP32", "data": data}


def is_exact(question: Question, body: bytes) -> bool:
    """Return whether an answer's spike counts are the reference engine's."""
    return [each["spike_counts"] for each in json.loads(body)["predictions"]] == question.counts


async def wrong(server: Server, asked: Sequence[Question]) -> int:
    """Return how many of the questions a server does not answer exactly, asked one after the other."""
    async with connect(server) as connection:
        answers = [await connection.ask(question.request) for question in asked]
    pairs = zip(asked, answers, strict=True)
    return sum(answer.status != 200 or not is_exact(question, answer.body) for question, answer in pairs)
