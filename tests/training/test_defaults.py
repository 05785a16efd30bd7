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
    taken = given.for_data(3200)
    assert taken.network.architecture == "128R"
    assert taken.network.readout is Readout.MEAN_MEMBRANE
    assert taken.optimisation.surrogate is Surrogate.ARCTAN


def test_an_image_keeps_the_plain_defaults() -> None:
    assert TrainingConfig().for_data(3200).model_dump() == TrainingConfig().model_dump()


def test_what_was_taken_is_written_and_read_again_without_a_second_choice(tmp_path: Path) -> None:
    taken = TrainingConfig(network=NetworkConfig(coding=Coding.SPIKES, architecture="16")).for_data(3200)
    path = tmp_path / "config.toml"
    taken.write(path)
    assert TrainingConfig.read(path, {}).for_data(3200) == taken


@pytest.mark.parametrize(
    ("samples", "batch_size", "epochs", "updates"),
    [
        (5, 2, 334, 1002),  # 2, 2 and 1 sample: three batches
        (45, 12, 250, 1000),  # a quarter, rounded up: four batches
        (500, 64, 125, 1000),  # eight batches
        (50_000, 64, 40, 31_280),  # 782 batches: 40 epochs are enough
    ],
)
def test_a_small_set_has_several_batches_an_epoch_and_a_thousand_updates(
    samples: int, batch_size: int, epochs: int, updates: int
) -> None:
    taken = TrainingConfig().for_data(samples).optimisation
    assert (taken.batch_size, taken.epochs, taken.updates(samples)) == (batch_size, epochs, updates)


def test_epochs_and_a_batch_size_that_were_given_stay() -> None:
    given = TrainingConfig(optimisation=OptimisationConfig(epochs=3)).for_data(45).optimisation
    assert (given.epochs, given.batch_size) == (3, 12)
    # Batches of 64 have all 45 samples: an epoch is one update.
    given = TrainingConfig(optimisation=OptimisationConfig(batch_size=64)).for_data(45).optimisation
    assert (given.epochs, given.batch_size) == (1000, 64)


@pytest.mark.parametrize(("samples", "rate"), [(255, 5e-3), (256, 2e-2)])
def test_a_small_set_of_sequences_has_a_lower_learning_rate(samples: int, rate: float) -> None:
    sequences = TrainingConfig(network=NetworkConfig(coding=Coding.CURRENT))
    assert sequences.for_data(samples).optimisation.learning_rate == rate
    assert TrainingConfig().for_data(samples).optimisation.learning_rate == 2e-3
