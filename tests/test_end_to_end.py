"""The main job from end to end: what training evaluated is what a server answers, sample by sample."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import load
from tests.serving import Process, running
from tests.training.command_line import training_here


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


def test_train_then_serve_answers_with_the_counts_of_the_evaluation(tmp_path: Path) -> None:
    words = "fit --architecture 32 --epochs 2 --repository repository --name digits"
    fitted = training_here(*words.split(), cwd=tmp_path, plots=False)
    assert fitted.returncode == 0, fitted.stderr
    evaluation = np.load(tmp_path / "runs" / "digits-1" / "evaluation.npz")
    with running(tmp_path / "repository") as process, httpx.Client(base_url=process.url, timeout=60) as client:
        answer = client.post("/predict", json={"inputs": evaluation["x"].tolist()}).json()
    assert (answer["model"], answer["version"]) == ("digits", 1)
    counts = [prediction["spike_counts"] for prediction in answer["predictions"]]
    assert counts == evaluation["spike_counts"].tolist()
    assert np.sum(counts) > 0
