"""The defaults that suit the data: images have one set and sequences another, and what was given stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikeserve.models.spec import Coding, Readout
from spikeserve.training.config import NetworkConfig, OptimisationConfig, Surrogate, TrainingConfig


@pytest.mark.parametrize(
    ("network", "temporal"),
    [
        (NetworkConfig(), False),
        (NetworkConfig(coding=Coding.RATE), False),
        (NetworkConfig(coding=Coding.SPIKES), True),
        (NetworkConfig(coding=Coding.CURRENT), True),
        (NetworkConfig(architecture="8C3-16R"), True),
        (NetworkConfig(architecture="8C3-16"), False),
    ],
)
def test_values_per_step_and_recurrent_layers_make_a_network_temporal(network: NetworkConfig, temporal: bool) -> None:
    assert network.temporal is temporal


def test_a_sequence_takes_the_defaults_of_sequences_but_for_what_was_given() -> None:
    given = TrainingConfig(
        network=NetworkConfig(coding=Coding.SPIKES), optimisation=OptimisationConfig(surrogate=Surrogate.ARCTAN)
    )
    taken = given.for_data()
    assert taken.network.architecture == "128R"
    assert taken.network.readout is Readout.MEAN_MEMBRANE
    assert taken.optimisation.surrogate is Surrogate.ARCTAN


def test_an_image_keeps_the_plain_defaults() -> None:
    assert TrainingConfig().for_data().model_dump() == TrainingConfig().model_dump()


def test_what_was_taken_is_written_and_read_again_without_a_second_choice(tmp_path: Path) -> None:
    taken = TrainingConfig(network=NetworkConfig(coding=Coding.SPIKES, architecture="16")).for_data()
    path = tmp_path / "config.toml"
    taken.write(path)
    assert TrainingConfig.read(path, {}).for_data() == taken
