"""Augmentation: each way of varying a sample does what it says, to some samples and by no more than it was told."""

from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding, Input
from spikeserve.training.config import AugmentConfig
from spikeserve.training.data.augment import augment, event_drop, shift, silence, time_jitter, time_shift
from spikeserve.training.errors import InvalidConfig


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
