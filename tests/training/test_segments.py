"""Segments: gradients are those of the whole sequence where they pass, and end where they are truncated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spikeserve.models.spec import Coding, Input, Readout
from spikeserve.training.config import NetworkConfig, Surrogate
from spikeserve.training.fit.architecture import build_architecture
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.fit.segments import run
from spikeserve.training.fit.surrogate import threshold_for

STEPS = 21


def network(architecture: str = "8R-D3-6", neuron: str = "CubaLIF") -> TrainingNetwork:
    """Return a network with every kind of state, whose neurons fire."""
    config = NetworkConfig.model_validate(
        {
            "architecture": architecture,
            "neuron": neuron,
            "coding": Coding.SPIKES,
            "readout": Readout.MEAN_MEMBRANE,
            "learn": ("decay",),
        }
    )
    torch.manual_seed(0)
    module = TrainingNetwork(build_architecture(config, Input(shape=(5,)), ("a", "b"), STEPS))
    with torch.no_grad():
        for name, values in module.named_parameters():
            if name.endswith("weight"):
                values.mul_(4.0)
    return module


def rasters() -> Tensor:
    """Return spikes (STEPS, 3, 5)."""
    return (torch.rand(STEPS, 3, 5, generator=torch.Generator().manual_seed(1)) < 0.4).float()


@pytest.mark.parametrize("length", [1, 5, 100])
def test_a_sequence_in_segments_gives_the_same_output_and_rates_as_in_one_go(length: int) -> None:
    module, threshold = network(), threshold_for(Surrogate.SUPERSPIKE, 5.0)
    whole, found = (run(module, rasters(), STEPS, threshold, truncate) for truncate in (None, length))
    torch.testing.assert_close(found.output, whole.output)
    assert all(float(rate.detach()) > 0 for rate in whole.rates.values())
    torch.testing.assert_close(dict(found.rates), dict(whole.rates))


def test_no_gradient_passes_where_it_is_truncated() -> None:
    steps = rasters().requires_grad_()
    passed = run(network(), steps, STEPS, threshold_for(Surrogate.SUPERSPIKE, 5.0), truncate=6)
    passed.output[-1].sum().backward()  # type: ignore[no-untyped-call]
    assert steps.grad is not None
    reached = steps.grad.abs().sum(dim=(1, 2)) > 0
    # Segments begin at 0, 6, 12 and 18: the last three steps are a segment of their own.
    assert not reached[:18].any()
    assert reached[18:].any()
