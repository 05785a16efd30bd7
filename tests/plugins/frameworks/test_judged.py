"""A difference is rounding only where the first spike that differs hangs on it; else nothing is published unasked."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Readout, Spec
from spikeserve.models.spec.network import Network
from spikeserve.plugins.frameworks.compare import (
    compare,
    judged,
    random_encoded,
    random_run,
    run_framework,
)
from tests.plugins.frameworks.plain_network import PLAIN, Hidden, taken_in
from tests.plugins.frameworks.test_frameworks import home, run_here

__all__ = ["home"]  # the fixture
INPUTS, NEURONS, SAMPLES = 30, 2000, 16
IMPORT = "import snntorch nets:one --input-shape 9 --time-steps 20 --repository r --name m"


def with_threshold(network: Network, threshold: float) -> Network:
    *before, last = network.spec.nodes
    fields = {name: getattr(network.spec, name) for name in Spec.model_fields}
    nodes = (*before, last.model_copy(update={"threshold": threshold}))
    return Network(Spec(**fields | {"nodes": nodes}), network.tensors)


@pytest.mark.parametrize("threshold", [1 + 2.0**-14, 1.02, 0.5, 4.0, 1e-30])
def test_a_spike_whose_charge_is_within_rounding_of_the_threshold_is_rounding_and_no_other(threshold: float) -> None:
    # A threshold that is a rounding error away from 1: in a wide layer some charges lie in between.
    torch.manual_seed(2)
    found = taken_in(nn.Sequential(nn.Linear(INPUTS, NEURONS), Hidden()), INPUTS, time_steps=4)
    network = with_threshold(found.network, threshold)
    inputs = random_encoded(network.spec, SAMPLES)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(network), inputs)
    parted, differing = judged(rows, network, inputs), sum(row.differing for row in rows)
    others = [origin for origin in parted if not origin.is_rounding]
    if threshold == 1 + 2.0**-14:
        assert (0 < differing < 100, others) == (True, [])
        assert "was so near its threshold that the rounding of sums decided" in str(parted[0])
    else:
        assert differing
        assert len(others) > len(parted) / 2  # a charge may happen to be near the other threshold
        assert "so the rules or weights differ" in str(others[0])


@pytest.mark.parametrize(("bias", "rounding"), [(0.0, True), (0.5, False)])
def test_all_spikes_that_differ_first_have_to_be_near_their_threshold(bias: float, *, rounding: bool) -> None:
    # Charges of 1 and 0.7 in the one step: the first is within rounding of the engine's threshold, 1 + 2**-15, and does
    # not fire there; with a bias of 0.5 the second, of 1.2, fires in the engine alone.
    linear = nn.Linear(2, 2)
    linear.weight.data, linear.bias.data = torch.diag(torch.tensor([1.0, 0.7])), torch.zeros(2)
    found = taken_in(nn.Sequential(linear, Hidden()), 2, time_steps=1)
    moved = with_threshold(found.network, 1 + 2.0**-15)
    other = Network(moved.spec, {**moved.tensors, "linear_0.bias": np.array([0, bias], np.float32)})
    inputs = DenseInputs(np.ones((1, 1, 2), np.float32), 1)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(other), inputs)
    (origin,) = judged(rows, other, inputs)
    assert origin.is_rounding is rounding


@pytest.mark.parametrize(("weight", "factor"), [(1.0, 1), (2.0**-8, 8), (2.0**-11, 64), (-1.0, 1)])
def test_random_inputs_are_scaled_until_neurons_spike(weight: float, factor: int) -> None:
    # 8 steps of 30 inputs of 1 add up to 240: with weights of 1/256 to less than the threshold, 1.
    made = nn.Sequential(nn.Linear(INPUTS, 3, bias=False), Hidden(), nn.Linear(3, 1, bias=False), Hidden())
    made[0].get_parameter("weight").data.fill_(weight)
    made[2].get_parameter("weight").data.fill_(1.0)
    inputs, theirs, by = random_run(taken_in(made, INPUTS), PLAIN, SAMPLES)
    assert (by, inputs.steps.max()) == (factor, factor)
    assert theirs[4][0].any() == (weight > 0)


def test_what_is_read_of_a_last_layer_is_compared_too() -> None:
    found = taken_in(nn.Sequential(Hidden(), nn.Linear(4, 4)), 4, readout=Readout.MEAN)
    inputs = random_encoded(found.network.spec, 8)
    theirs = run_framework(found, PLAIN, inputs)
    same = compare(found, theirs, ReferenceEngine(found.network), inputs)
    assert [(row.node, row.differing) for row in same] == [("hidden_0", 0), ("linear_1", 0)]
    tensors = {**found.network.tensors, "linear_1.bias": found.network.tensors["linear_1.bias"] + np.float32(1)}
    other = Network(found.network.spec, tensors)
    rows = compare(found, theirs, ReferenceEngine(other), inputs)
    assert [(row.node, row.differing) for row in rows] == [("hidden_0", 0), ("linear_1", 32)]
    assert not any(origin.is_rounding for origin in judged(rows, other, inputs))


@pytest.mark.parametrize("readout", [Readout.SPIKE_COUNT, Readout.MEAN])
def test_what_is_read_of_neurons_behind_a_flatten_is_compared_too(readout: Readout) -> None:
    found = taken_in(nn.Sequential(nn.Conv2d(1, 2, 2), Hidden(), nn.Flatten()), 1, 3, 3, readout=readout)
    inputs = random_encoded(found.network.spec, 8)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(found.network), inputs)
    read = [] if readout is Readout.SPIKE_COUNT else ["flatten_2"]
    assert [(row.node, row.differing) for row in rows] == [(node, 0) for node in ["hidden_1", *read]]


@pytest.fixture
def wrong(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A rule of snnTorch's neurons that gets their threshold wrong."""
    module: Any = sys.modules.get("spikeserve.plugins.frameworks.snntorch") or pytest.importorskip(
        "spikeserve.plugins.frameworks.snntorch"
    )
    right = module._spiking
    monkeypatch.setattr(
        module, "_spiking", lambda *given, **named: right(*given, **named) | {"threshold": torch.tensor(0.25)}
    )
    return home


def test_what_its_own_table_shows_to_be_another_network_is_not_published_unless_asked(wrong: Path) -> None:
    status, _, errors = run_here(*IMPORT.split())
    assert status == 1
    assert "error: 'm' is not published: 16 of 16 random samples differ from its framework by more than" in errors
    assert "so the rules or weights differ; --publish-anyway publishes it" in errors.replace("\n", " ")
    assert not (wrong / "r").exists()
    status, _, errors = run_here(*IMPORT.split(), "--publish-anyway")
    assert status == 0, errors
    card = ModelRepository(wrong / "r").read("m").card
    assert "**It computes something else than its framework.** 16 of 16 random samples differ" in card
    status, found, _ = run_here("verify", "r/m/1", "--against", "snntorch:nets:one")
    assert status == 1
    assert "so the rules or weights differ" in found.replace("\n", " ")
