"""Data sets by name, normalisation that is learned on the training split alone, and each way of varying a sample."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding, Input, OutOfRange
from spikeserve.training.config import AugmentConfig, DataConfig, NetworkConfig, Normalise
from spikeserve.training.data.augment import augment, event_drop, shift, silence, time_jitter, time_shift
from spikeserve.training.data.dataset import Split
from spikeserve.training.data.datasets import load, load_for
from spikeserve.training.data.normalise import declare, lost_levels
from spikeserve.training.data.splits import three_ways
from spikeserve.training.errors import InvalidConfig, InvalidData
from spikeserve.training.fit.architecture import build_architecture


def test_the_test_split_is_a_fifth_of_each_class_that_hangs_on_the_split_seed_alone() -> None:
    first, again = load(DataConfig(), Coding.DIRECT), load(DataConfig(validation_share=0.3), Coding.DIRECT)
    assert (len(first.training), len(first.validation), len(first.test)) == (1293, 144, 360)
    assert (first.test.samples.min(), first.test.samples.max()) == (0, 16)
    assert {*np.bincount(first.test.labels)} <= {35, 36, 37}
    np.testing.assert_array_equal(first.test.samples, again.test.samples)


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
@pytest.mark.parametrize("others", [[50, 90], [-90, -50], [-9, 1]])
def test_only_the_training_split_is_learned_from(coding: Coding, shape: tuple[int, ...], others: list[int]) -> None:
    training, held_out = np.array([0, 2], np.float32), np.array(others, np.float32)
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
    digits = load(DataConfig(dataset="digits", normalise="standard"), Coding.DIRECT)
    pixels = digits.declared.normalise(digits.training.samples)
    assert (pixels.mean(), pixels.std()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


def test_a_network_that_takes_pictures_without_channels_has_them_so() -> None:
    spec = build_architecture(NetworkConfig(architecture="none"), Input(shape=(8, 8)), tuple("0123456789"), 4).spec
    digits, same = load_for(DataConfig(dataset="digits"), spec, "m"), load(DataConfig(dataset="digits"), Coding.DIRECT)
    assert digits.declared.shape == (8, 8)
    np.testing.assert_array_equal(digits.test.samples, same.test.samples[:, 0])


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


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def varied(samples: Any, coding: Coding = Coding.SPIKES, seed: int = 0, **settings: Any) -> Any:
    declared = Input(shape=samples.shape[2:] if coding.per_step else samples.shape[1:])
    config = AugmentConfig(**settings)
    return augment(samples, config, rng(seed), declared=declared, coding=coding)


def rasters(density: float = 0.3, samples: int = 3) -> Any:
    return (rng(1).random((samples, 20, 6)) < density).astype(np.uint8)


@pytest.mark.parametrize(
    "settings", [{"event_drop": 0.5}, {"time_jitter": 2}, {"time_shift": 3}], ids=lambda each: str(each)
)
def test_a_seed_gives_one_result_and_the_batch_stays_as_it_was(settings: dict[str, Any]) -> None:
    samples = rasters()
    assert varied(samples) is samples  # by default nothing is varied
    before = samples.copy()
    first, again, other = (varied(samples, seed=seed, **settings) for seed in (0, 0, 1))
    np.testing.assert_array_equal(samples, before)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.uint8
    assert set(np.unique(first)) <= {0, 1}  # spikes stay spikes


def test_a_picture_moves_by_up_to_so_many_pixels_and_leaves_the_fill() -> None:
    image = np.zeros((200, 1, 5, 5), np.float32)
    image[:, 0, 2, 2] = 7
    moved = shift(image, 1, -1.0, rng())
    places = {tuple(map(int, np.argwhere(each[0] == 7)[0])) for each in moved}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    down = next(each[0] for each in moved if each[0, 3, 2] == 7)
    assert down[0].tolist() == [-1] * 5  # one row down, so that the first one is new
    assert (down[1:] != -1).all()
    np.testing.assert_array_equal(shift(image, 0, 0, rng()), image)


def test_a_camera_s_raster_moves_as_a_picture_does_at_every_step_alike() -> None:
    raster = np.zeros((50, 4, 2, 5, 5), np.uint8)
    raster[:, :, :, 2, 2] = 1
    moved = shift(raster, 2, 0, rng())
    assert (moved == moved[:, :1, :1]).all()
    assert moved.sum() == raster.sum()
    assert not np.array_equal(moved, raster)


def test_a_sample_begins_earlier_or_later_and_silence_comes_in() -> None:
    series = np.arange(1, 6, dtype=np.float32).reshape(1, 5, 1).repeat(100, axis=0)
    moved = {tuple(each[:, 0]) for each in time_shift(series, 2, -9.0, rng())}
    assert moved == {
        (3, 4, 5, -9, -9), (2, 3, 4, 5, -9), (1, 2, 3, 4, 5), (-9, 1, 2, 3, 4), (-9, -9, 1, 2, 3),
    }  # fmt: skip
    assert {tuple(each[:, 0]) for each in time_shift(series[:, :1], 3, -9.0, rng())} == {(-9,), (1,)}


def test_spikes_move_by_normal_steps_and_keep_their_place() -> None:
    raster = np.zeros((1, 101, 4000), np.uint8)
    raster[0, 50] = 1
    moved = time_jitter(raster, 3.0, rng())
    assert (moved.sum(axis=1) == 1).all()  # each unit still has its spike
    steps = moved[0].argmax(axis=0) - 50
    assert abs(steps.mean()) < 0.2
    # The deviation of 3, and the variance of 1/12 that rounding adds.
    assert steps.std() == pytest.approx((9 + 1 / 12) ** 0.5, rel=0.05)


def test_spikes_that_leave_the_sample_are_gone_and_two_that_meet_are_one() -> None:
    full = np.ones((1, 3, 2000), np.uint8)
    moved = time_jitter(full, 5.0, rng())
    assert set(np.unique(moved)) == {0, 1}
    assert 0 < moved.sum() < full.sum()


def test_a_drop_is_a_span_of_time_some_channels_or_values_at_random() -> None:
    full = np.ones((300, 40, 30), np.uint8)
    dropped = event_drop(full, 0.5, 0, rng(), per_step=True)
    kinds = {"span": 0, "channels": 0, "values": 0, "none": 0}
    for each in dropped == 0:
        share = each.mean()
        assert share <= 0.75  # channels and values are drawn one by one, so that a few more may be missing
        steps, channels = each.all(axis=1), each.all(axis=0)
        if not each.any():
            kinds["none"] += 1
        elif (each == steps[:, np.newaxis]).all():
            kinds["span"] += 1
            assert share <= 0.5
            assert np.diff(np.flatnonzero(steps)).max(initial=1) == 1  # in one piece
        elif (each == channels).all():
            kinds["channels"] += 1
        else:
            kinds["values"] += 1
    assert min(kinds[kind] for kind in ("span", "channels", "values")) > 60
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.04)  # shares are even between 0 and 0.5


def test_a_dropped_span_has_as_many_steps_as_its_share_rounded_up() -> None:
    # A share of up to 0.3 of 10 steps is 1, 2 or 3 of them, each as often. Channels and values that are dropped are not
    # all 400 of a step, so that what is dropped of whole steps is a span.
    dropped = event_drop(np.ones((1500, 10, 400), np.uint8), 0.3, 0, rng(), per_step=True) == 0
    lengths, counts = np.unique(dropped.all(axis=2).sum(axis=1), return_counts=True)
    assert lengths.tolist() == [0, 1, 2, 3]  # 0 in the other ways
    assert counts[1:] / 500 == pytest.approx([1 / 3] * 3, abs=0.08)
    whole = event_drop(np.ones((300, 2, 50), np.uint8), 1.0, 0, rng(), per_step=True) == 0
    assert any(each[0].all() and not each[1].any() for each in whole)  # a span may begin at the first step
    assert any(each[1].all() and not each[0].any() for each in whole)  # and end with the last


def test_missing_analog_values_are_what_is_0_after_normalisation() -> None:
    # 0.5 * value - 10 is 0 at 20, and 2 * value + 8 is 0 at -4, which lies below the range: its end, -1.
    declared = Input(shape=(2,), low=(10, -1), high=(30, 1), scale=(0.5, 2), offset=(-10, 8))
    assert silence(declared).tolist() == [20, -1]
    assert silence(Input(shape=(2,), low=-1, scale=0)) == 0
    series = np.full((3, 8, 2), 25, np.float32)
    config = AugmentConfig(time_shift=8)
    found = augment(series, config, rng(3), declared=declared, coding=Coding.CURRENT)
    assert {tuple(step) for step in found.reshape(-1, 2).tolist()} == {(25, 25), (20, -1)}


@pytest.mark.parametrize(
    ("coding", "settings", "sentence"),
    [
        (Coding.SPIKES, {"shift": 1}, "augment.shift: is 1, but the input has no height and width, expected 0"),
        (Coding.DIRECT, {"time_shift": 2}, "augment.time_shift: is 2, but samples have no time with coding 'direct'"),
        (Coding.DIRECT, {"time_jitter": 0.5}, "augment.time_jitter: is 0.5, but samples are no spikes with coding 'di"),
        (Coding.CURRENT, {"time_jitter": 0.5}, "augment.time_jitter: is 0.5, but samples are no spikes with coding 'c"),
    ],
)
def test_a_setting_without_meaning_is_refused(coding: Coding, settings: dict[str, Any], sentence: str) -> None:
    samples = np.zeros((3, 5, 4) if coding.per_step else (3, 4), np.float32)
    with pytest.raises(InvalidConfig, match=f"^{sentence}"):
        varied(samples, coding, **settings)
