"""Segments: gradients are those of the whole sequence where they pass, and end where they are truncated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spikeserve.models.spec import Coding, Input, Readout
from spikeserve.training.config import NetworkConfig, Surrogate
from spikeserve.training.fit.architecture import build_architecture
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.fit.segments import Lengths, PassResult, run
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


def gradients(module: TrainingNetwork, lengths: Lengths) -> tuple[PassResult, dict[str, Tensor]]:
    """Return a pass, and the gradients of a loss of its outputs and firing rates."""
    passed = run(module, rasters(), STEPS, threshold_for(Surrogate.SUPERSPIKE, 5.0), lengths)
    module.zero_grad()
    loss = (passed.output[-1] ** 2).sum() + sum(passed.rates.values(), torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    # A learned delay's gradient looks some steps ahead, and at the end of a segment there are none.
    learned = [(name, values.grad) for name, values in module.named_parameters() if not name.endswith(".delay")]
    return passed, {name: gradient.clone() for name, gradient in learned if gradient is not None}


@pytest.mark.parametrize("length", [1, 4, 100])
def test_gradients_that_are_computed_again_are_those_of_the_whole(length: int) -> None:
    module = network()
    whole, expected = gradients(module, Lengths())
    passed, found = gradients(module, Lengths(recompute=length))
    assert torch.allclose(passed.output, whole.output, rtol=1e-5, atol=1e-5)
    for name, rate in whole.rates.items():
        assert float(rate.detach()) > 0, name
        assert torch.allclose(passed.rates[name], rate, rtol=1e-5), name
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * float(gradient.abs().max()), name


def test_no_gradient_passes_where_it_is_truncated() -> None:
    steps = rasters().requires_grad_()
    module = network()
    passed = run(module, steps, STEPS, threshold_for(Surrogate.SUPERSPIKE, 5.0), Lengths(truncate=5))
    passed.output[-1].sum().backward()  # type: ignore[no-untyped-call]
    assert steps.grad is not None
    reached = steps.grad.abs().sum(dim=(1, 2)) > 0
    # Segments begin at 0, 5, 10, 15 and 20: the last step is a segment of its own.
    assert not reached[:20].any()


def test_truncated_and_computed_again_are_cut_at_both() -> None:
    module = network()
    kept, expected = gradients(module, Lengths(truncate=6))
    passed, found = gradients(module, Lengths(truncate=6, recompute=4))
    assert torch.allclose(passed.output, kept.output, rtol=1e-5, atol=1e-5)
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= 1e-4 * float(gradient.abs().max()), name


def test_a_segment_that_is_computed_again_keeps_no_membranes() -> None:
    kept: list[int] = []

    def save(values: Tensor) -> Tensor:
        kept.append(values.numel())
        return values

    module, sizes = network("64R", "LIF"), {}
    for name, lengths in (("whole", Lengths()), ("again", Lengths(recompute=3))):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(save, lambda values: values):
            run(module, rasters(), STEPS, threshold_for(Surrogate.SUPERSPIKE, 5.0), lengths)
        sizes[name] = sum(kept)
    assert sizes["again"] < sizes["whole"] / 2
