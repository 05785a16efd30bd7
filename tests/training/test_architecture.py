"""Architectures from a line of text."""

from __future__ import annotations

import pytest

from models.spec import Input, Readout
from models.spec.nodes import LI, LIF, Conv2d, CubaLI, CubaLIF
from training.config import NetworkConfig
from training.errors import InvalidConfig
from training.fit.architecture import build_architecture

IMAGE = Input(shape=(1, 8, 8))


def test_the_short_form_reads_as_it_is_written() -> None:
    spec = build_architecture(NetworkConfig(architecture="12C5-MP2-6C3-AP2-FC20R"), IMAGE, ("a", "b"), 4).spec
    assert [node.type for node in spec.nodes] == [
        "Conv2d", "LIF", "MaxPool2d", "Conv2d", "LIF", "AvgPool2d", "Flatten", "Linear", "LIF", "Linear", "LIF",
    ]  # fmt: skip
    first = spec.nodes[0]
    assert isinstance(first, Conv2d)
    assert (first.out_channels, first.kernel_size, first.padding) == (12, (5, 5), (2, 2))
    assert spec.output_shapes["conv3"] == (6, 4, 4)
    dense = spec.nodes[8]
    assert isinstance(dense, LIF)
    assert dense.recurrent is not None


def test_no_layers_is_a_single_layer_network() -> None:
    spec = build_architecture(NetworkConfig(architecture=""), IMAGE, ("a", "b"), 4).spec
    assert [node.type for node in spec.nodes] == ["Flatten", "Linear", "LIF"]


def test_a_membrane_readout_ends_in_a_layer_that_does_not_fire() -> None:
    config = NetworkConfig(architecture="8", readout=Readout.MAX_MEMBRANE)
    assert isinstance(build_architecture(config, IMAGE, ("a", "b"), 4).spec.nodes[-1], LI)


def test_a_synaptic_current_is_in_every_layer_and_in_the_readout() -> None:
    config = NetworkConfig(architecture="8R", neuron="CubaLIF", syn_decay=0.25, readout=Readout.MAX_MEMBRANE)
    _, _, hidden, _, last = build_architecture(config, IMAGE, ("a", "b"), 4).spec.nodes
    assert isinstance(hidden, CubaLIF)
    assert isinstance(last, CubaLI)
    assert hidden.recurrent is not None
    assert hidden.syn_decay == last.syn_decay == 0.25


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("8X3", "'8X3' is not a layer"),
        ("8C4", "'8C4' has a kernel of 4, expected an odd one"),
        ("16-8C3", "does not fit its input: .* expected an input of"),
        ("AP16", "a kernel of 16×16 does not fit"),
        ("0", "architecture"),
    ],
)
def test_a_layer_that_is_none_or_does_not_fit_is_refused(architecture: str, sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        build_architecture(NetworkConfig(architecture=architecture), IMAGE, ("a", "b"), 4)
