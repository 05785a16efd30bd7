"""A plain FastAPI endpoint around the PyTorch module.

`python -m benchmarks.serving.peers.fastapi_torch BUNDLE PORT`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.serving.peers.network import Network, answer


class Question(BaseModel):
    """The body of a request."""

    inputs: list[list[float]]


class Prediction(BaseModel):
    """What is said of one sample."""

    class_index: int
    spike_counts: list[int]
    probabilities: list[float]


class Answer(BaseModel):
    """The body of an answer."""

    predictions: list[Prediction]


def application(bundle: Path) -> FastAPI:
    """Return the application; its endpoint is a plain function, which FastAPI calls on one of its threads."""
    torch.set_num_threads(1)
    network = Network(bundle)
    app = FastAPI()

    @app.post("/predict", response_model=Answer)
    def predict(question: Question) -> dict[str, object]:
        with torch.inference_mode():
            return answer(network(torch.tensor(question.inputs)))

    return app


if __name__ == "__main__":
    uvicorn.run(application(Path(sys.argv[1])), port=int(sys.argv[2]), access_log=False, log_level="warning")
