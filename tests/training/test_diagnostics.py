"""Warnings: one sentence for each kind of trouble, told once; a healthy run has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spikeserve.training.data.dataset import Dataset
from spikeserve.training.fit.diagnostics import Diagnostics
from spikeserve.training.report.epochs import Epoch

HEALTHY = Epoch(0, 0.7, 0.6, 0.7, 0.6, {"neuron1": 0.1, "output": 0.05}, 1.0, gradient_norm=0.8)


@pytest.fixture
def diagnostics(data: Dataset) -> Diagnostics:
    """Those of a set of two classes, half of the samples each."""
    return Diagnostics(data)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gradient_norm": 1e16}, "explode: their median length is 1.0e+16"),
        ({"gradient_norm": float("nan")}, "explode"),
        ({"gradient_norm": 1e-9}, "vanish: their median length is 1.0e-09"),
        ({"training_loss": float("nan")}, "the training loss is nan"),
        ({"firing_rates": {"neuron1": 0.0, "output": 0.05}}, "neuron1 is silent"),
        ({"firing_rates": {"neuron1": 0.97, "output": 0.05}}, "neuron1 fires at nearly every step (97%)"),
        # Of 115 samples 58 are of one class, 50.4 %, and three deviations of 4.7 % above it are luck.
        (
            {"number": 4, "training_accuracy": 0.64},
            "after 5 epochs the training accuracy is 64.0%, which chance can explain: always naming the most frequent "
            "class is right in 50.4%, and in up to 64.4% of 115 samples by luck",
        ),
    ],
)
def test_trouble_is_one_sentence_once(changed: dict[str, object], words: str, diagnostics: Diagnostics) -> None:
    epoch = replace(HEALTHY, **changed)  # type: ignore[arg-type]
    (sentence,) = diagnostics.of(epoch)
    assert words in sentence
    assert diagnostics.of(epoch) == ()


@pytest.mark.parametrize(
    "changed",
    [{}, {"gradient_norm": 1e-9, "training_loss": 1e-3}, {"number": 3, "training_accuracy": 0.5}],
    ids=["healthy", "all is learned", "the first epochs"],
)
def test_what_is_no_trouble_has_no_warning(changed: dict[str, object], diagnostics: Diagnostics) -> None:
    assert diagnostics.of(replace(HEALTHY, **changed)) == ()  # type: ignore[arg-type]
