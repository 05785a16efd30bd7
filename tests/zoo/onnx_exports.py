"""ONNX files as scikit-learn's converter and PyTorch's exporter write them."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from tests.zoo.weights import lively


def _samples() -> tuple[Any, Any]:
    random = np.random.default_rng(120)
    values = random.random((90, 16)).astype(np.float32)
    return values, values[:, :3].argmax(axis=1)


def logistic_regression_zipmap() -> bytes:
    values, classes = _samples()
    fitted = LogisticRegression(max_iter=200).fit(values, classes)
    return to_onnx(fitted, values[:1]).SerializeToString()


def _exported(network: nn.Module, example: Tensor, *, batch_axis: int = 0) -> bytes:
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # that this exporter is the older one
        torch.onnx.export(
            network.eval(), (example,), file := Path(folder, "model.onnx"),
            input_names=["input"], output_names=["output"], dynamo=False,
            dynamic_axes={"input": {batch_axis: "batch"}, "output": {0: "batch"}},
        )  # fmt: skip
        return file.read_bytes()


def _classifier() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 3 * 3, 5)
    )  # fmt: skip
    return lively(network, seed=121)


def torch_logits() -> bytes:
    return _exported(_classifier(), torch.rand(2, 1, 8, 8))


class Unrolled(nn.Module):
    """A spiking network whose loop over five steps is unrolled in the export; it returns the spikes' counts."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        counts = first = second = torch.zeros(())
        for step in range(5):
            first = 0.9 * first + self.fc1(x[:, step])
            fired = (first > 1.0).to(x.dtype)
            first = first - fired
            second = 0.9 * second + self.fc2(fired)
            spikes = (second > 1.0).to(x.dtype)
            second = second - spikes
            counts = counts + spikes
        return counts


def torch_unrolled() -> bytes:
    return _exported(lively(Unrolled(), seed=123), torch.rand(2, 5, 16))
