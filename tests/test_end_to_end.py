"""The main job from end to end: what training evaluated is what a server answers, sample by sample."""

import asyncio
from typing import Any

import httpx

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import load
from tests.serving import Process


def test_the_shipped_digits_answer_the_held_out_samples_alone_as_in_batches(shipped: Process) -> None:
    held_out = load(DataConfig(), Coding.DIRECT).test
    flat = held_out.samples.reshape(len(held_out), -1).astype(int).tolist()  # raw pixels, 0 to 16

    async def ask() -> tuple[list[Any], list[Any]]:
        async with httpx.AsyncClient(base_url=shipped.url, timeout=60) as client:
            batches = [await client.post("/predict", json={"inputs": flat[k : k + 100]}) for k in range(0, 360, 100)]
            alone = [await client.post("/predict", json={"inputs": [sample]}) for sample in flat]
        together = [prediction for batch in batches for prediction in batch.json()["predictions"]]
        return together, [answer.json()["predictions"][0] for answer in alone]

    together, alone = asyncio.run(ask())
    assert together == alone
    right = sum(found["class_index"] == label for found, label in zip(together, held_out.labels, strict=True))
    assert right / len(held_out) >= 0.985
