"""Scales, joins and the connections that PyTorch has no module for, as training sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec.network import Network
from spikeserve.training.config import Surrogate
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.fit.surrogate import threshold_for
from tests.networks import Case, dyadic_cases, network_of, task

SURROGATE = threshold_for(Surrogate.SUPERSPIKE, 10.0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=dyadic_cases())
def test_a_training_network_gives_and_takes_what_any_network_holds(case: Case) -> None:
    # Whatever is drawn: its tensors come back bit for bit, and its outputs are those of the reference engine.
    if not case.inputs.batch or any(node.several for node in case.network.spec.spiking_nodes):
        return
    module = TrainingNetwork.of(case.network).eval()
    back = module.network()
    assert back.spec == case.network.spec
    assert {name: tensor.tolist() for name, tensor in back.tensors.items()} == {
        name: tensor.tolist() for name, tensor in case.network.tensors.items()
    }
    with torch.no_grad():
        activity = module(torch.from_numpy(case.inputs.steps), case.inputs.time_steps, SURROGATE)
    expected, _ = ReferenceEngine(case.network).run(case.inputs)
    if case.network.spec.readout == "spike_count":
        assert activity.output.sum(dim=0).tolist() == expected.spike_counts.tolist()


def joined() -> Network:
    """Return a network whose weights and arrays lie before a Scale of each step, a product and a concatenation."""
    rng = np.random.default_rng(0)
    nodes: list[dict[str, Any]] = [
        {"type": "ConvTranspose1d", "name": "up", "in_channels": 2, "out_channels": 3, "kernel_size": 2, "stride": 2},
        {"type": "Scale", "name": "norm", "scale": "per_channel", "offset": "per_neuron", "steps": 6},
        {"type": "LIF", "name": "spikes", "decay": 0.5},
        {"type": "Permute", "name": "turned", "order": [1, 0]},
        {"type": "MatMul", "name": "attention", "inputs": ["spikes", "turned"]},
        {"type": "Multiply", "name": "squares", "inputs": ["attention", "attention"]},
        {"type": "Concatenate", "name": "both", "inputs": ["squares", "spikes"], "axis": 1},
        {"type": "Flatten", "name": "flat"},
        {"type": "Linear", "name": "fc", "in_features": 33, "out_features": 2},
        {"type": "LI", "name": "out", "decay": 0.5},
    ]
    tensors = {
        "up.weight": rng.normal(size=(3, 2, 2)),
        "up.bias": rng.normal(size=3),
        "norm.scale": 1 + rng.random((6, 3)),
        "norm.offset": rng.random((6, 3, 8)),
        "fc.weight": rng.normal(size=(2, 33)),
        "fc.bias": [0, 0],
    }
    return network_of(
        nodes, tensors, input={"shape": [2, 4]}, coding="spikes", time_steps=6, readout="mean_membrane",
        labels=["a", "b"],
    )  # fmt: skip


def gradients() -> dict[str, torch.Tensor]:
    module = TrainingNetwork.of(joined())
    spikes = (torch.rand(6, 3, 2, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    torch.autograd.backward(module(spikes, 6, SURROGATE).output.square().sum())
    return {name: values.grad for name, values in module.named_parameters() if values.grad is not None}


def test_gradients_reach_every_weight_and_array_before_joins() -> None:
    found = gradients()
    assert len(found) == 6
    assert all(gradient.abs().max() > 0 for gradient in found.values())
    scale = next(gradient for gradient in found.values() if gradient.shape == (6, 3))
    assert all(step.abs().max() > 0 for step in scale)


@pytest.mark.parametrize("kind", ["Multiply", "MatMul", "Concatenate"])
def test_sums_behind_a_join_of_spikes_are_exact(kind: str) -> None:
    rng = np.random.default_rng(1)
    side = 8 if kind == "Concatenate" else 4
    network = network_of(
        [
            {"type": "IF", "name": "spikes", "threshold": 0.5},
            {"type": kind, "name": "joined", "inputs": ["spikes", "spikes"]},
            {"type": "Flatten", "name": "flat"},
            {"type": "Linear", "name": "fc", "in_features": side * 4, "out_features": 2},
            {"type": "IF", "name": "out"},
        ],
        {"fc.weight": rng.normal(size=(2, side * 4)), "fc.bias": rng.normal(size=2)},
        **task((4, 4), 3, "ab", "spikes"),
    )
    assert round_to_grid(network).exact
