"""On any weights, ours differ from a framework by its rounding alone: as often as it differs from itself.

A framework adds up in float32, in an order that its convolution chooses. Another choice of it, as another machine or
number of threads may make, moves some spikes; ours, whose sums are exact, stay about as far from either.
"""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from spikeserve.models.engines import EngineName, create
from spikeserve.models.spec.sums import Summation, sums_of
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.frameworks.compare import compare, random_encoded, run_framework
from spikeserve.training.importers.frameworks.convert import convert
from tests.training.test_peers import peer

PER_MILLION = 100.0  # 25 of ours and 22 of its own differed over eight networks and 20 million spikes


def test_a_random_convolutional_network_differs_by_its_frameworks_rounding(
    capsys: pytest.CaptureFixture[str],
) -> None:
    framework = peer("snntorch")
    leaky = importlib.import_module("snntorch").Leaky
    torch.manual_seed(3)
    fields = {"beta": 0.9, "threshold": 0.5, "init_hidden": True}
    first, second, last = nn.Conv2d(1, 12, 5), nn.Conv2d(12, 64, 5), nn.Linear(1024, 10)
    with torch.no_grad():  # so that every layer fires
        first.weight *= 2.0
        second.weight *= 3.0
        last.weight *= 3.0
    network = nn.Sequential(
        *(first, leaky(**fields), nn.MaxPool2d(2)),
        *(second, leaky(**fields), nn.MaxPool2d(2), nn.Flatten()),
        *(last, leaky(**fields, output=True)),
    )
    converted = convert(network, framework, Options((1, 28, 28), 25, None, None, ()))
    assert sums_of(converted.network)["conv2d_3"].by is Summation.INTEGER
    inputs = random_encoded(converted.network.spec, 32, seed=3)
    theirs = run_framework(converted, framework, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some builds of PyTorch warn of other devices here
        with torch.backends.mkldnn.flags(enabled=False):
            otherwise = run_framework(converted, framework, inputs)
    rows = compare(converted, theirs, create(EngineName.EVENT, converted.network), inputs)
    spikes = sum(row.spikes or 0 for row in rows)
    ours = sum(row.differing for row in rows)
    own = sum(np.count_nonzero(theirs[place][0] != otherwise[place][0]) for place in converted.places.values())
    with capsys.disabled():
        print(f"\n{ours} of {spikes} spikes differ from snnTorch's, and {own} of its own by another convolution")
    assert spikes > 10**6
    assert ours <= PER_MILLION * 1e-6 * spikes
