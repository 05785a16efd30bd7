"""Data sets: the same split for a seed, and one clear sentence for data that cannot be trained on.

Normalisation: learned on the training split alone, and kind to values that training never saw.
"""

from itertools import product
from typing import Any

import numpy as np
import pytest

from spikeserve.models.coding import encode
from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec import Coding, Input, OutOfRange
from spikeserve.training.config import DataConfig, Normalise
from spikeserve.training.data.dataset import Split
from spikeserve.training.data.datasets import load
from spikeserve.training.data.normalise import declare, lost_levels
from spikeserve.training.data.splits import three_ways
from spikeserve.training.errors import InvalidData


def test_the_test_split_is_a_fifth_of_each_class_that_hangs_on_the_split_seed_alone() -> None:
    first, again = load(DataConfig(), Coding.DIRECT), load(DataConfig(validation_share=0.3), Coding.DIRECT)
    assert (len(first.training), len(first.validation), len(first.test)) == (1293, 144, 360)
    assert (first.test.samples.min(), first.test.samples.max()) == (0, 16)
    assert {*np.bincount(first.test.labels)} <= {35, 36, 37}
    np.testing.assert_array_equal(first.test.samples, again.test.samples)
    other = load(DataConfig(split_seed=1), Coding.DIRECT)
    assert not np.array_equal(first.test.samples, other.test.samples)


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(
        InvalidData,
        match="'cifar' is not one, expected digits, mnist, fashion-mnist, mnist-5000, arrays, events, spoken-digits, n",
    ):
        load(DataConfig(dataset="cifar"), Coding.DIRECT)


def test_whatever_the_seed_no_sample_is_left_out_of_the_splits() -> None:
    labels, every = np.repeat(np.arange(3), (11, 20, 40)), np.arange(71)
    for seed, groups in product(range(5), (None, every // 2)):
        assert sorted(np.concatenate(three_ways(labels, DataConfig(split_seed=seed), groups))) == [*every]


def declared(training: Any, shape: tuple[int, ...], coding: Coding = Coding.CURRENT, **config: Any) -> Input:
    return declare(shape, np.array(training, np.float32), [], DataConfig(**config), coding)


def test_each_channel_of_a_series_gets_mean_0_and_deviation_1() -> None:
    # Channel 0 is 1 and 3: mean 2, deviation 1. Channel 1 is 100 and 140: mean 120, deviation 20.
    found = declared([[[1, 100], [3, 140]]], (2,))
    assert found.scale == (1, 0.05)
    assert found.offset == (-2, -6)
    np.testing.assert_allclose(found.normalise(np.array([[3, 100]], np.float32)), [[1, -1]])


def test_the_pixels_of_a_channel_share_its_normalisation() -> None:
    images = np.stack([np.arange(4).reshape(2, 2), np.full((2, 2), 7)])[np.newaxis]  # 0, 1, 2, 3 and 7, 7, 7, 7
    found = declared(images, (2, 2, 2), Coding.DIRECT, normalise="standard")
    assert found.scale == pytest.approx((1 / 1.25**0.5, 1), rel=1e-6)  # of a channel that never changes, 1
    assert found.offset == pytest.approx((-1.5 / 1.25**0.5, -7), rel=1e-6)


def test_each_feature_of_a_table_goes_from_0_to_1_and_values_beyond_are_taken_for_its_ends() -> None:
    # Feature 0 goes from 1 to 3, feature 1 from 1000 to 1400, and feature 2 is always a second of the year 2023.
    table = np.array([[1, 1000, 1.7e9], [3, 1400, 1.7e9], [1.5, 1300, 1.7e9]], np.float32)
    for coding in (Coding.DIRECT, Coding.RATE):
        found = declare((3,), table, [table * 2], DataConfig(), coding)
        assert found.out_of_range is OutOfRange.CLIP
        np.testing.assert_array_equal(found.normalise(table), [[0, 0, 0], [1, 1, 0], [0.25, 0.75, 0]])
    assert declared(table, (3,), Coding.DIRECT, low=0).low == 0  # which is said of all features alike
    assert declared(table.reshape(1, 3, 3), (3, 3), Coding.DIRECT).low == 1


@pytest.mark.parametrize("coding", list(Coding))
@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_only_the_training_split_is_learned_from(coding: Coding, shape: tuple[int, ...]) -> None:
    training, held_out = np.array([0, 2], np.float32), np.array([50, 90], np.float32)
    if coding.per_step:
        training, held_out = training.reshape(1, 2), held_out.reshape(1, 2)
    of_training, of_others = (samples.reshape(*samples.shape, *shape) for samples in (training, held_out))
    with_others = declare(shape, of_training, [of_others], DataConfig(), coding)
    alone = declare(shape, of_training, [], DataConfig(), coding)
    assert with_others.model_copy(update={"out_of_range": alone.out_of_range}) == alone
    assert with_others.out_of_range is OutOfRange.CLIP  # so that all samples are answered


def test_a_sentence_says_where_rounding_leaves_few_levels() -> None:
    labels = np.zeros(40, np.int64)
    # Feature 1 is 0 to 39 but for one value of 10,000: 39 / 10,000 is 1 of 256. Feature 2 has two values, which stay.
    table = np.stack([np.arange(40), np.arange(40), np.arange(40) % 2], axis=1).astype(np.float32)
    table[7, 1] = 10_000
    found = declare((3,), table, [], DataConfig(), Coding.DIRECT)
    (sentence,) = lost_levels(Split(table, labels), found)
    assert sentence.startswith("x: rounding to 0.00390625 after normalisation leaves feature 1 fewer than 4 levels")
    # Half of the series go up to 1 and the others up to 1,000, whose deviation is some 400.
    series = (
        np.linspace(0, 1, 50, dtype=np.float32)[:, np.newaxis] * np.where(np.arange(40) % 2, 1000, 1)[:, None, None]
    )
    for lengths in (None, np.full(40, 30)):
        split = Split(series.astype(np.float32), labels, lengths)
        (sentence,) = lost_levels(split, declare((1,), split.values, [], DataConfig(), Coding.CURRENT))
        assert "leaves 50% of the samples fewer than 4 levels" in sentence
        assert ("give --normalise each" in sentence) is (lengths is None)
    each = declare((1,), split.values, [], DataConfig(normalise=Normalise.EACH), Coding.CURRENT)
    assert each.by_deviation
    assert lost_levels(split, each) == ()
    assert lost_levels(Split(table[:7], labels[:7]), declare((3,), table[:7], [], DataConfig(), Coding.DIRECT)) == ()


def test_a_value_that_training_never_saw_is_answered_and_far_ones_are_taken_for_the_end_of_the_range() -> None:
    # Training goes from 0 to 2, with mean and deviation 1. Half of its range further on either side: -1 to 3.
    found = declared([[[0], [2]]], (1,))
    assert (found.low, found.high, found.out_of_range) == ((-1,), (3,), OutOfRange.CLIP)
    assert found.normalised_range == (-2, 2)


def test_an_outlier_does_not_take_the_weights_bits() -> None:
    # 9,999 zeros and a one: the deviation is 0.01, and the one lies 100 of them away; the range goes to 32.
    series = np.zeros((1, 10_000, 1), np.float32)
    series[0, 0] = 1
    low, high = declared(series, (1,)).normalised_range
    assert high == pytest.approx(32, abs=1 / 64)
    assert low > -51  # half of the range of 100 below 0


def test_without_a_choice_the_coding_has_its_usual_normalisation() -> None:
    series = [[[0.25], [2]]]
    for coding, method in (("current", "standard"), ("spikes", "none"), ("direct", "range"), ("rate", "range")):
        taken = declared(series, (1,), Coding(coding))
        assert taken == declared(series, (1,), Coding(coding), normalise=method)
        assert method != "none" or taken == Input(shape=(1,), low=0.25, high=2)


@pytest.mark.parametrize(
    ("values", "high", "resolution"),
    [([0, 3], 4, None), ([0, 3], 3, 2**-8), ([0, 0.3], 4, 2**-8)],
    ids=["whole numbers, quarters", "whole numbers, thirds", "real numbers"],
)
def test_a_range_is_rounded_so_that_sums_are_exact(values: list[float], high: float, resolution: float | None) -> None:
    assert declared([[value] for value in values], (1,), Coding.DIRECT, high=high).resolution == resolution


@pytest.mark.parametrize(
    ("coding", "config", "sentence"),
    [
        ("spikes", {"normalise": "standard"}, "normalise: is 'standard', but coding 'spikes' takes values as they are"),
        ("spikes", {"normalise": "range"}, "normalise: is 'range', but coding 'spikes'"),
        ("rate", {"normalise": "standard"}, "normalise: is 'standard', but coding 'rate' needs values from 0 to 1"),
        ("direct", {"normalise": "each"}, "is 'each' with coding 'direct', expected 'current', the coding of a series"),
        ("current", {"low": 5}, "x: cannot be normalised: input: low is 5 and high is 1"),
    ],
)
def test_a_normalisation_that_a_coding_cannot_take_is_refused(coding: str, config: Any, sentence: str) -> None:
    with pytest.raises(InvalidData, match=sentence):
        declared([[[0], [1]]], (1,), Coding(coding), **config)


def test_values_outside_a_range_are_refused_and_beside_a_standard_one_answered() -> None:
    from tests.networks import toy

    spec = toy(Coding.CURRENT).spec
    far = np.array([[[0, 1000]]], np.float32)
    series = np.array([[[0, 0], [2, 2]]], np.float32)
    ranged = declare((2,), series, [], DataConfig(normalise=Normalise.RANGE, low=0), Coding.CURRENT)
    with pytest.raises(InvalidInput, match="is 1000, expected 0 to 2"):
        encode(far, spec.model_copy(update={"input": ranged}))
    standard = declare((2,), series, [], DataConfig(), Coding.CURRENT)
    assert encode(far, spec.model_copy(update={"input": standard})).steps.tolist() == [[[-1, 2]]]
