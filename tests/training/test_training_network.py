"""What only training knows of a network is folded into what it writes: batch norm, dropout, learned values."""

import numpy as np
import pytest
import torch
from torch import Tensor

from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec import Coding, Input, Readout
from spikeserve.models.spec.nodes import Delay
from spikeserve.training.config import NetworkConfig, Surrogate
from spikeserve.training.fit.architecture import NodeTraining, build_architecture
from spikeserve.training.fit.layers import Delays, SynapticDelays
from spikeserve.training.fit.network import TrainingNetwork, forward
from spikeserve.training.fit.surrogate import SurrogateThreshold


def network_for(text: str, shape: tuple[int, ...] = (1, 6, 6), **config: object) -> TrainingNetwork:
    settings = NetworkConfig(architecture=text, coding=Coding.SPIKES, **config)
    torch.manual_seed(0)
    module = TrainingNetwork(build_architecture(settings, Input(shape=shape), ("a", "b"), 5))
    with torch.no_grad():
        for name, values in module.named_parameters():
            values.mul_(4 if name.endswith("connection.weight") else 1)  # so that every layer fires
    return module


def rasters(samples: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return (np.random.default_rng(0).random((samples, 5, *shape)) < 0.5).astype(np.float32)


@pytest.mark.parametrize(
    "text",
    ["4C3-BN-MP2-8", "12-BN-DO0.5-8R-BN", "D4-12R:cubalif(syn_decay=0.5)-D3-8:alif", "32T3d2-24T9", "32S4-BN-24S3Th"],
)
@pytest.mark.parametrize("readout", [Readout.SPIKE_COUNT, Readout.MEAN_MEMBRANE, Readout.MEAN])
def test_the_network_that_is_written_computes_what_evaluation_does(text: str, readout: Readout) -> None:
    shape = (1, 6, 6) if "C" in text else (6,)
    module = network_for(text, shape, readout=readout, learn=("decay", "threshold", "adapt_gain"))
    samples = rasters(16, *shape)
    threshold = SurrogateThreshold(Surrogate.SUPERSPIKE, 5.0)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(3):  # moves weights, learned parameters, delays and running statistics
        optimiser.zero_grad()
        forward(module, samples, threshold).output.mean().neg().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    module.eval()
    with torch.inference_mode():
        evaluated = forward(module, samples, HardThreshold())
    network = module.network()
    served, _ = ReferenceEngine(network).run(encode(samples, network.spec))
    if readout is Readout.SPIKE_COUNT:
        # Folded batch norm rounds otherwise: a spike in two hundred may differ, without it none.
        found = evaluated.output.sum(dim=0).numpy()
        assert found.sum() > 0
        assert np.abs(served.spike_counts - found).sum() <= (found.sum() / 200 if "BN" in text else 0)
    else:
        np.testing.assert_allclose(served.readout, evaluated.output.mean(dim=0), rtol=1e-3, atol=1e-3)


def test_a_learned_delay_is_whole_and_its_gradient_points_to_the_spike_that_is_missed() -> None:
    # One input that spikes at step 2, delayed by 2: it arrives at step 4. The loss wants it at step 5, one later: the
    # delay must grow. At step 3 it must shrink.
    delays = Delays(Delay(name="d", delay="per_neuron"), (1,), NodeTraining(longest_delay=6))
    spike = torch.zeros(8, 1, 1)
    spike[2] = 1
    for wanted, sign in ((5, -1), (3, 1)):
        with torch.no_grad():
            delays.delay.fill_(2.2)
        delays.zero_grad()
        out = delays(spike, 8)
        assert out.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0]
        (-out[wanted].sum()).backward()  # descending it raises what leaves at the wanted step
        assert isinstance(delays.delay.grad, Tensor)
        assert np.sign(float(delays.delay.grad)) == sign
    assert delays.written()[1]["delay"].tolist() == [2.0]


def test_a_synapse_is_spread_over_taps_around_its_delay_and_in_the_end_is_one_of_them() -> None:
    delays = SynapticDelays(torch.nn.Linear(7, 1), 6)
    weight = torch.full((1, 1), 2.0)
    for progress, width in ((0.0, 3.0), (0.25, (3 * 0.5) ** 0.5), (0.5, 0.5), (0.75, 0.5)):
        delays.narrow(progress)
        assert delays.width == pytest.approx(width)
    with torch.no_grad():
        delays.delay.fill_(2.25)
    spread = delays(weight)
    shares = torch.exp(-(torch.tensor([-2.25, -1.25, -0.25, 0.75, 1.75, 2.75, 3.75]) ** 2) / (2 * 0.5**2))
    torch.testing.assert_close(spread, 2 * (shares / shares.sum())[None])
    # The loss wants more of the weight four steps ago: the delay must grow.
    (-spread[0, 4]).backward()
    assert isinstance(delays.delay.grad, Tensor)
    assert float(delays.delay.grad) < 0
    one_tap = [0, 0, 2, 0, 0, 0, 0]
    assert delays.eval()(weight).flatten().tolist() == one_tap
    delays.train().narrow(0.8)
    assert delays(weight).flatten().tolist() == one_tap
    assert delays.delay.item() == 2
    assert not delays(weight).requires_grad
