"""Weights of few bits: rounded after training by `quantise`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from spikeserve.models.bundle import File
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.spec.narrow import BITS, narrow_of
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.training.__main__ import app
from spikeserve.training.data.datasets import Labels
from spikeserve.training.fit.exact import round_to_bits
from spikeserve.training.report.card import NARROW
from tests.bundles import publish
from tests.networks import network_of, task


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


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    labels = np.arange(120) % 3
    np.savez(tmp_path / "lines.npz", x=lines(labels), y=labels)
    return tmp_path / "lines.npz"


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


def quantise(tmp_path: Path, *options: str) -> tuple[str, ModelRepository]:
    publish(tmp_path / "repository", classifier(), "lines")
    words = ["quantise", str(tmp_path / "repository/lines/1"), "--repository", str(tmp_path / "repository"), *options]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output, ModelRepository(tmp_path / "repository")


def test_the_next_version_has_few_bits_and_says_what_that_changes(tmp_path: Path, data_file: Path) -> None:
    said, repository = quantise(tmp_path, "--bits", "7", "--data", str(data_file))
    before, after = repository.read("lines", 1), repository.read("lines", 2)
    assert after.network.spec.weight_bits == {"hidden.weight": 7, "read.weight": 7}
    for name, tensor in before.network.tensors.items():
        np.testing.assert_allclose(after.network.tensors[name], tensor, atol=np.abs(tensor).max() / 30)
    # 12 × 6 + 3 × 12 weights of a byte, and 15 exponents of two.
    assert (
        "The tensors have 138 bytes instead of 432. On the 24 test samples the accuracy is 100.00% instead of " in said
    )
    assert f"## {NARROW}" in after.card
    assert after.manifest.metrics["test_accuracy"] == 1.0


def test_without_data_weights_are_rounded_and_nothing_is_measured(tmp_path: Path) -> None:
    said, repository = quantise(tmp_path, "--bits", "4")
    assert "Nothing was measured with them; what else stands here is of version 1." in said
    after = repository.read("lines", 2)
    assert (after.manifest.metrics, after.network.spec.weight_bits["hidden.weight"]) == ({}, 4)
    folder = repository.folder("lines", 2)
    assert (folder / File.WEIGHTS).stat().st_size < (repository.folder("lines", 1) / File.WEIGHTS).stat().st_size


def test_other_bits_are_a_sentence(tmp_path: Path) -> None:
    publish(tmp_path, classifier(), "lines")
    words = ["quantise", str(tmp_path / "lines/1"), "--repository", str(tmp_path), "--bits", "5"]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, str(result.exception)) == (1, "--bits is 5, expected 8, 7, 6 or 4")
