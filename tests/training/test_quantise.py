"""Weights of few bits: rounded after training by `quantise`.

Rounding by the currents of calibration samples: weights that make up for each other.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from spikeserve.models.bundle import File
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import Record, create
from spikeserve.models.engines.torch.network import build
from spikeserve.models.spec import Spec
from spikeserve.models.spec.narrow import BITS, narrow_of
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.training.__main__ import app
from spikeserve.training.config import DataConfig
from spikeserve.training.data.dataset import Split
from spikeserve.training.data.datasets import Labels, load_for
from spikeserve.training.fit.exact import round_to_bits
from spikeserve.training.fit.gptq import MOST_INPUTS, input_products, quantised, round_together
from spikeserve.training.publish.calibrate import calibrate
from spikeserve.training.publish.quantise import UNCALIBRATED
from spikeserve.training.report.card import EARLY, NARROW, calibration_text
from tests.bundles import publish
from tests.networks import network_of, pruned, task


def test_an_output_takes_the_power_of_two_that_loses_least() -> None:
    # Of 4 bits, -7 to 7. By 1/4: 1, -1/4, 0, which is off by 0.1, 0.06 and 0.12. By 1/8: 7/8, -1/4, 1/8, off by 0.025,
    # 0.06 and 0.005. By 1/16, 0.9 is cut off at 7/16.
    # The other output takes 16, as 8 would cut 100 off at 56.
    weight = torch.tensor([[0.9, -0.31, 0.12], [100.0, 0.0, 28.0]])
    assert round_to_bits(weight, 4).tolist() == [[0.875, -0.25, 0.125], [96.0, 0.0, 32.0]]


@given(st.integers(0, 2**32 - 1), st.sampled_from(BITS), st.integers(-20, 20))
def test_rounded_weights_have_their_bits_and_rounding_again_changes_none(seed: int, bits: int, power: int) -> None:
    weight = np.random.default_rng(seed).normal(0, 2.0**power, (3, 2, 5)).astype(np.float32)
    rounded = round_to_bits(torch.from_numpy(weight), bits)
    assert narrow_of(rounded.numpy(), bits) is not None
    assert torch.equal(round_to_bits(rounded, bits), rounded)
    # No weight is further off than by half a step of the greatest, or by what is cut off: three quarters of it.
    largest = np.abs(weight).max(axis=(1, 2))
    assert (np.abs(rounded.numpy() - weight).max(axis=(1, 2)) <= 0.75 * largest).all()


def lines(labels: Labels) -> FloatArray:
    """Draw an input of 6 values for each label of 3: loud at its two, and quiet elsewhere."""
    rng = np.random.default_rng(1)
    return (rng.integers(0, 3, (len(labels), 6)) + 8 * np.repeat(np.eye(3), 2, axis=1)[labels]).astype(np.float32)


def classifier() -> Network:
    """Six inputs to twelve neurons, and these to three, which tell `lines` apart; weights are of no few bits."""
    rng = np.random.default_rng(0)
    hidden = np.tile(np.repeat(np.eye(3), 2, axis=1), (4, 1)) / 16 + rng.normal(0, 0.002, (12, 6))
    read = np.tile(np.eye(3), 4) / 3 + rng.normal(0, 0.01, (3, 12))
    return network_of(
        [
            {"type": "Linear", "name": "hidden", "in_features": 6, "out_features": 12, "bias": False},
            {"type": "LIF", "name": "lif", "decay": 0.5},
            {"type": "Linear", "name": "read", "in_features": 12, "out_features": 3, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {"hidden.weight": hidden, "read.weight": read},
        **task(6, 6, "012", low=0, high=10),
    )


def quantise(tmp_path: Path, *options: str) -> tuple[Result, ModelRepository]:
    publish(tmp_path / "repository", classifier(), "lines")
    words = ["quantise", str(tmp_path / "repository/lines/1"), "--repository", str(tmp_path / "repository"), *options]
    return CliRunner().invoke(app, words), ModelRepository(tmp_path / "repository")


def test_the_next_version_has_few_bits_and_says_what_that_changes(tmp_path: Path) -> None:
    labels = np.arange(120) % 3
    np.savez(tmp_path / "lines.npz", x=lines(labels), y=labels)
    result, repository = quantise(tmp_path, "--bits", "7", "--data", str(tmp_path / "lines.npz"))
    before, after = repository.read("lines", 1), repository.read("lines", 2)
    assert after.network.spec.weight_bits == {"hidden.weight": 7, "read.weight": 7}
    for name, tensor in before.network.tensors.items():
        np.testing.assert_allclose(after.network.tensors[name], tensor, atol=np.abs(tensor).max() / 30)
    # 12 × 6 + 3 × 12 weights of a byte, and 15 exponents of two.
    assert (
        "The tensors have 138 bytes instead of 432. On the 24 test samples the accuracy is 100.00% instead of "
        in result.output
    )
    assert f"## {NARROW}" in after.card
    assert after.manifest.metrics["test_accuracy"] == 1.0


def test_without_data_weights_are_rounded_and_nothing_is_measured(tmp_path: Path) -> None:
    result, repository = quantise(tmp_path, "--bits", "4")
    assert "Nothing was measured with them; what else stands here is of version 1." in result.output
    after = repository.read("lines", 2)
    assert (after.manifest.metrics, after.network.spec.weight_bits["hidden.weight"]) == ({}, 4)
    folder = repository.folder("lines", 2)
    assert (folder / File.WEIGHTS).stat().st_size < (repository.folder("lines", 1) / File.WEIGHTS).stat().st_size


@pytest.mark.parametrize("measured", [True, False])
def test_rounded_weights_are_calibrated_again_or_said_not_to_be(tmp_path: Path, measured: bool) -> None:
    labels, there = np.arange(120) % 3, tmp_path / "repository"
    np.savez(tmp_path / "lines.npz", x=lines(labels), y=labels)
    np.savez(tmp_path / "half.npz", x=lines(labels[:60]), y=labels[:60])
    publish(there, classifier(), "lines")
    calibrated = ["calibrate", "lines", "--target", "0.05", "--data", str(tmp_path / "half.npz")]
    rounded = ["quantise", str(there / "lines/2"), "--bits", "4"]
    for words in (calibrated, rounded + ["--data", str(tmp_path / "lines.npz")] * measured):
        assert CliRunner().invoke(app, [*words, "--repository", str(there)]).exit_code == 0
    before, after = (ModelRepository(there).read("lines", version) for version in (2, 3))
    section = after.card.split(f"## {EARLY}")[1]
    if not measured:
        assert (after.calibration, UNCALIBRATED in section) == (None, True)
        return
    samples = load_for(DataConfig(dataset="arrays", file=tmp_path / "lines.npz"), after.network.spec, "lines")
    expected = calibrate(create("event", after.network), samples.validation, samples.training, 0.05)
    assert after.calibration == expected != before.calibration
    assert calibration_text(expected) in section


def test_other_bits_are_a_sentence(tmp_path: Path) -> None:
    result, _ = quantise(tmp_path, "--bits", "5")
    assert (result.exit_code, str(result.exception)) == (1, "--bits is 5, expected 8, 7, 6 or 4")


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
def test_products_give_what_weights_do_to_currents(node: dict[str, Any], shape: tuple[int, ...], outputs: int) -> None:
    network, samples = behind(node, shape, outputs), raster(5, STEPS, *shape)
    module = build(network.spec.nodes[0], shape)  # with fresh weights: the change
    weight, bias = (values.detach() for values in module.parameters())
    products = input_products(network, split_of(samples))["connection.weight"]
    rows = torch.cat([weight.flatten(1), bias[:, None]], 1).double().reshape(len(products), -1, products.shape[1])
    currents = module(torch.from_numpy(samples).flatten(0, 1)).detach().double()
    assert float((rows @ products * rows).sum()) == pytest.approx(float(currents.square().sum()), rel=1e-5)


def test_products_of_recurrent_weights_are_of_the_spikes_of_the_step_before() -> None:
    network, samples = behind(LINEAR, (6,), 8, {"bias": True}), raster(5, STEPS, 6)
    result, _ = create("reference", network).run(encode(samples, network.spec), record=Record.RASTER)
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
