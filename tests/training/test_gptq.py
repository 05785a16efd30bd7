"""Rounding by the currents of calibration samples: weights that make up for each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from spikeserve.models.coding import encode
from spikeserve.models.engines import EngineName, Record, create
from spikeserve.models.engines.torch.network import build
from spikeserve.models.spec import Spec
from spikeserve.models.spec.narrow import narrow_of
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.training.data.dataset import Split
from spikeserve.training.fit.exact import round_to_bits
from spikeserve.training.fit.gptq import MOST_INPUTS, input_products, quantised, round_together
from tests.networks import pruned

STEPS = 3


def raster(*shape: int) -> FloatArray:
    return (np.random.default_rng(0).random(shape) < 0.3).astype(np.float32)


LINEAR = {"type": "Linear", "in_features": 6, "out_features": 8}
CONV1D = {"type": "Conv1d", "in_channels": 4, "out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1}
CONV2D = {"type": "Conv2d", "in_channels": 2, "out_channels": 8, "kernel_size": (4, 3), "padding": "same"}


def behind(node: dict[str, Any], shape: tuple[int, ...], outputs: int, recurrent: Any = None) -> Network:
    """Draw a network of one connection to neurons, which is sent spikes."""
    rng = np.random.default_rng(1)
    spec = Spec.read(
        {
            "nodes": [
                {"name": "connection", **node},
                {"type": "LIF", "name": "lif", "decay": 0.5, "recurrent": recurrent},
            ],
            "input": {"shape": shape, "low": 0, "high": 1},
            "coding": "spikes",
            "time_steps": STEPS,
            "labels": [str(label) for label in range(outputs)],
        }
    )
    shapes = spec.tensor_shapes
    return Network(spec, {name: rng.normal(0, 0.5, size).astype(np.float32) for name, size in shapes.items()})


def split_of(samples: FloatArray) -> Split:
    return Split(samples, np.zeros(len(samples), np.int64))


@pytest.mark.parametrize(
    ("node", "shape", "outputs"),
    [(LINEAR, (6,), 8), (CONV1D | {"groups": 2}, (4, 9), 40), (CONV2D | {"dilation": (1, 2)}, (2, 6, 5), 240)],
)
def test_products_give_what_weights_do_to_the_currents(
    node: dict[str, Any], shape: tuple[int, ...], outputs: int
) -> None:
    network, samples = behind(node, shape, outputs), raster(5, STEPS, *shape)
    module = build(network.spec.nodes[0], shape)  # with fresh weights: the change
    weight, bias = (values.detach() for values in module.parameters())
    products = input_products(network, split_of(samples))["connection.weight"]
    rows = torch.cat([weight.flatten(1), bias[:, None]], 1).double().reshape(len(products), -1, products.shape[1])
    currents = module(torch.from_numpy(samples).flatten(0, 1)).detach().double()
    assert float((rows @ products * rows).sum()) == pytest.approx(float(currents.square().sum()), rel=1e-5)


def test_products_of_recurrent_weights_are_of_the_spikes_of_the_step_before() -> None:
    network, samples = behind(LINEAR, (6,), 8, {"bias": True}), raster(5, STEPS, 6)
    result, _ = create(EngineName.REFERENCE, network).run(encode(samples, network.spec), record=Record.RASTER)
    spikes = result.rasters["lif"][:-1].reshape(-1, 8)
    assert spikes.any()
    inputs = np.concatenate([spikes, np.ones((len(spikes), 1))], axis=1)
    np.testing.assert_array_equal(
        input_products(network, split_of(samples))["lif.recurrent.weight"][0], inputs.T @ inputs
    )


def test_an_input_makes_up_for_one_that_it_is_always_there_with() -> None:
    # By 1/4, the nearest to 0.4 is 1/2. The second and third input are always there together: 0.8 in all, of which
    # 1/2 + 1/4 is off by 0.05, and 1/2 + 1/2 by 0.2. The first is there alone, and 7/4 needs all 4 bits.
    inputs = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.float64)  # the last is the bias's
    weight = torch.tensor([[1.75, 0.4, 0.4]])
    assert round_to_bits(weight, 4).tolist() == [[1.75, 0.5, 0.5]]
    assert round_together(weight, None, (inputs.T @ inputs)[None], 4)[0].tolist() == [[1.75, 0.5, 0.25]]


def test_weights_whose_inputs_no_sample_has_are_rounded_to_the_nearest() -> None:
    weight, products = torch.tensor([[0.9, -0.31, 0.12]]), torch.zeros(1, 4, 4, dtype=torch.float64)
    products[0, 3, 3] = 10  # of the bias: ten rows
    assert torch.equal(round_together(weight, None, products, 4)[0], round_to_bits(weight, 4))


@pytest.mark.parametrize("bits", [8, 4])
def test_currents_change_less_than_by_the_nearest_and_rounding_again_changes_nothing(bits: int) -> None:
    rng = np.random.default_rng(2)
    seen = torch.from_numpy(np.maximum(0, rng.normal(0, 1, (200, 4)) @ rng.normal(0, 1, (4, 16)) + 1)).float()
    weight = torch.from_numpy(rng.normal(0, 1, (8, 16))).float()
    bias = torch.zeros(8)
    inputs = torch.cat([seen, torch.ones(200, 1)], 1).double()
    products = (inputs.T @ inputs)[None]
    rounded, moved = round_together(weight, bias, products, bits)
    assert moved is not None
    assert narrow_of(rounded.numpy(), bits) is not None
    nearest = seen @ (round_to_bits(weight, bits) - weight).T
    together = seen @ (rounded - weight).T + moved
    assert float(together.square().sum()) < 0.5 * float(nearest.square().sum())
    again, still = round_together(rounded, moved, products, bits)
    assert torch.equal(again, rounded)
    assert still is not None
    assert torch.equal(still, moved)


def test_weights_that_are_not_stored_do_not_make_up_for_others() -> None:
    network = pruned(behind(LINEAR, (6,), 8), np.random.default_rng(3), every=5, said=True)
    products = input_products(network, split_of(raster(20, STEPS, 6)))
    rounded = quantised(network, {"connection.weight": 4}, products)
    before, after = (each.tensors["connection.weight"] for each in (network, rounded))
    assert after.any()
    assert not after[before == 0].any()


def test_outputs_of_very_many_inputs_are_left_out() -> None:
    inputs = MOST_INPUTS + 1
    network = behind(LINEAR | {"in_features": inputs}, (inputs,), 8)
    assert input_products(network, split_of(raster(1, STEPS, inputs))) == {}
