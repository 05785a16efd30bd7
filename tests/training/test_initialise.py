"""Fresh weights of a network for sequences: membranes vary by the threshold, decays are spread, scores vary by 1."""

import numpy as np
import pytest
import torch

from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec import Input, Readout
from spikeserve.models.spec.network import FloatArray
from spikeserve.training.config import NetworkConfig
from spikeserve.training.fit.architecture import build_architecture
from spikeserve.training.fit.initialise import RECURRENT, initialise
from spikeserve.training.fit.layers import Connection, Neurons
from spikeserve.training.fit.losses import class_scores
from spikeserve.training.fit.network import TrainingNetwork, forward

STEPS = 80


@pytest.fixture(scope="module")
def rasters() -> FloatArray:
    """Spikes of 12 units with rates from 2 to 40 %, (64, STEPS, 12)."""
    rng = np.random.default_rng(0)
    return (rng.random((64, STEPS, 12)) < np.linspace(0.02, 0.4, 12)).astype(np.float32)


def fresh(rasters: FloatArray, architecture: str = "32R", **fields: object) -> TrainingNetwork:
    """Return a network for `rasters`, initialised as sequences are."""
    usual = {"coding": "spikes", "readout": "mean_membrane", "learn": ("decay", "syn_decay"), "decay": None}
    config = NetworkConfig.model_validate(usual | {"architecture": architecture} | fields)
    torch.manual_seed(0)
    module = TrainingNetwork(build_architecture(config, Input(shape=(12,)), ("a", "b", "c"), STEPS))
    initialise(module, rasters, temporal=True)
    return module


def neurons(module: TrainingNetwork, name: str) -> Neurons:
    """Return a layer of neurons by its node's name."""
    found = next(layer for layer in module.layers if isinstance(layer, Neurons) and layer.node.name == name)
    assert isinstance(found, Neurons)
    return found


@pytest.mark.parametrize("neuron", ["LIF", "CubaLIF"])
def test_each_membrane_has_mean_0_and_the_threshold_as_its_deviation(neuron: str, rasters: FloatArray) -> None:
    module = fresh(rasters, f"32R:{neuron.lower()}(threshold=2)", neuron=neuron)
    layer = neurons(module, "neuron1")
    connection = next(layer for layer in module.layers if isinstance(layer, Connection))
    current = connection.connection(torch.from_numpy(rasters).transpose(0, 1))
    decay, gain, membrane = layer.parameter("decay"), layer.parameter("gain"), torch.zeros(64, 32)
    synapse = torch.zeros(64, 32)
    membranes = []
    for step in current:  # the equations of a LIF that does not fire, and of its synaptic current
        synapse = layer.parameter("syn_decay") * synapse + step if neuron == "CubaLIF" else step
        membrane = decay * membrane + gain * synapse
        membranes.append(membrane)
    charged = torch.stack(membranes)
    assert torch.allclose(charged.mean(dim=(0, 1)), torch.zeros(32), atol=1e-2)
    assert torch.allclose(charged.std(dim=(0, 1)), torch.full((32,), 2.0), rtol=1e-2)


def test_decays_are_spread_from_two_steps_to_a_quarter_of_the_sequence(rasters: FloatArray) -> None:
    module = fresh(rasters, "200R")
    constants = -1 / neurons(module, "neuron1").parameter("decay").detach().log()
    assert float(constants.min()) * 1.001 >= 2.0
    assert float(constants.max()) <= STEPS / 4 * 1.001
    # Log-uniform: as many below the geometric mean of 2 and 20 as above it; 100 of 200, give or take 4 deviations.
    assert abs(int((constants < 40**0.5).sum()) - 100) < 4 * 50**0.5
    readout = -1 / neurons(module, "output").parameter("decay").detach().log()
    assert torch.allclose(readout, torch.full((3,), STEPS / 10), rtol=1e-3)


def test_a_decay_that_a_layer_states_is_where_each_of_its_neurons_starts(rasters: FloatArray) -> None:
    module = fresh(rasters, "16R:cubalif(decay=0.9)-16:cubalif(syn_decay=0.5)")
    first, second = neurons(module, "neuron1"), neurons(module, "neuron2")
    assert torch.allclose(first.parameter("decay"), torch.tensor(0.9))
    assert torch.allclose(second.parameter("syn_decay"), torch.tensor(0.5))
    assert float(second.parameter("decay").detach().std()) > 0.05


def test_an_adlif_starts_where_its_authors_draw_and_stays_there(rasters: FloatArray) -> None:
    learn = ("decay", "adapt_decay", "adapt_coupling", "adapt_spike")
    layer = neurons(fresh(rasters, "200R:adlif", learn=learn), "neuron1")
    for name, low, high in (("adapt_coupling", 0, 120), ("adapt_spike", 0, 240)):
        drawn = layer.parameter(name).detach()
        assert low <= float(drawn.min()) < 0.05 * high
        assert 0.95 * high < float(drawn.max()) <= high
    constants = -1 / layer.parameter("adapt_decay").detach().log()
    assert 59.9 < float(constants.min()) < 70
    assert 200 < float(constants.max()) < 300.1
    for pushed in (-1e3, 1e3):
        torch.nn.init.constant_(layer.learned["adapt_coupling"], pushed)
        assert set(layer.parameter("adapt_coupling").tolist()) == {0.0 if pushed < 0 else 120.0}
    stated = neurons(fresh(rasters, "8R:adlif(adapt_coupling=200)", learn=learn), "neuron1")
    assert torch.allclose(stated.parameter("adapt_coupling"), torch.tensor(200.0))


def test_recurrent_weights_start_as_a_rotation(rasters: FloatArray) -> None:
    recurrent = neurons(fresh(rasters), "neuron1").recurrent
    assert recurrent is not None
    product = recurrent.weight @ recurrent.weight.T
    assert torch.allclose(product, RECURRENT**2 * torch.eye(32), atol=1e-6)


@pytest.mark.parametrize("readout", [Readout.MEAN_MEMBRANE, Readout.MEAN, Readout.LAST])
def test_the_scores_of_a_fresh_network_vary_by_1(readout: Readout, rasters: FloatArray) -> None:
    module = fresh(rasters, readout=readout)
    scores = class_scores(forward(module, rasters, HardThreshold()).output, readout)
    assert float((scores - scores.mean(dim=0)).detach().std()) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("architecture", ["32R-BN", "16-BN-16R", "D8-16R"])
def test_batch_norm_and_delays_start_so_that_every_layer_fires(architecture: str, rasters: FloatArray) -> None:
    module = fresh(rasters, architecture)
    for layer, rate in forward(module, rasters, HardThreshold()).firing_rates.items():
        assert 0.005 < rate < 0.4, layer
