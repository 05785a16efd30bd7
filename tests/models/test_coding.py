"""Coding: the same sample and seed give the same steps, wherever and beside whatever they are encoded."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikeserve.models.coding import MAX_SEED, DenseInputs, encode, encode_next
from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec import Coding, Spec
from tests.networks import toy


def spec(coding: Coding, time_steps: int = 5, **declared: float) -> Spec:
    """Return the toy's spec; `declared` changes its input's range and how that is normalised."""
    plain = toy(coding, time_steps).spec
    return plain.model_copy(update={"input": plain.input.model_copy(update=declared)})


def test_latency_coding_spikes_once_and_earlier_for_more() -> None:
    # Five steps: x = 1 at step 0, 0.5 at floor(0.5 * 4 + 0.5) = 2, 0.25 at floor(3 + 0.5) = 3, 0 never. Others go to
    # the nearest step, and to the later of two: 0.7 at floor(1.2 + 0.5) = 1, 0.3 at floor(2.8 + 0.5) = 3, 0.625 at
    # floor(1.5 + 0.5) = 2, 0.375 at floor(2.5 + 0.5) = 3.
    samples = np.array([[1.0, 0.5], [0.25, 0.0], [0.7, 0.3], [0.625, 0.375]], np.float32)
    steps = encode(samples, spec(Coding.LATENCY)).steps
    assert np.argwhere(steps).tolist() == [[0, 0, 0], [1, 2, 0], [2, 0, 1], [2, 3, 0], [3, 1, 0], [3, 2, 1], [3, 3, 1]]


def apart(**changed: object) -> Spec:
    """Return a network over one value a step, which divides each sample by its own deviation."""
    nodes = [{"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2}, {"type": "IF", "name": "out"}]
    declared = {"shape": [1], "low": -10, "high": 10, "resolution": 0.25, "by_deviation": True}
    fields = {"coding": "current", "time_steps": 2, "labels": ["a", "b"], "nodes": nodes, "input": declared}
    return Spec.read(fields | changed)


def test_by_deviation_a_sample_is_its_shape_and_the_logarithm_of_its_size() -> None:
    # Of 1, -1 the deviation is 1, of 6, -2 around their mean 4, of 3, -3 it is 3, half way from 2 to 4. One of the same
    # values has none.
    samples = np.array([[[1], [-1]], [[6], [-2]], [[3], [-3]], [[5], [5]]], np.float32)
    steps = encode(samples, apart()).steps.swapaxes(0, 1)
    assert steps.tolist() == [[[1, 0], [-1, 0]], [[1, 2], [-1, 2]], [[1, 1.5], [-1, 1.5]], [[0, -32], [0, -32]]]
    # 31 zeros and a 1: the 1 lies 5.57 deviations above the mean, 5.5 in quarters; of 10,000 values it would be 100.
    lonely = (np.arange(10_000) == 7).astype(np.float32).reshape(1, -1, 1)
    assert encode(lonely[:, :32], apart()).steps.max() == 5.5
    assert encode(lonely, apart()).steps.max() == 32


def test_what_reads_a_sample_whole_needs_a_series_and_a_grid_and_goes_on_from_nothing() -> None:
    assert apart().output_shapes["input"] == (2,)
    with pytest.raises(InvalidSpec, match="input: by_deviation is true with coding 'direct', expected 'current'"):
        apart(coding="direct")
    with pytest.raises(InvalidSpec, match="by_deviation is true without a resolution"):
        apart(input={"shape": [1], "by_deviation": True})
    with pytest.raises(InvalidInput, match="by each whole sample's deviation, expected another to go on"):
        encode_next(np.zeros((2, 1), np.float32), apart(), 2, 0, 0)


def test_rate_coding_fires_with_the_values_probability() -> None:
    samples = np.array([[0.0, 1.0], [0.25, 0.5]], np.float32)
    rates = encode(samples, spec(Coding.RATE), time_steps=20_000, seed=3).steps.mean(axis=0)
    assert rates[0].tolist() == [0.0, 1.0]
    # Three standard deviations of a mean of 20,000 draws at 0.25 and 0.5 are 0.0092 and 0.0106.
    assert rates[1] == pytest.approx([0.25, 0.5], abs=0.011)


@given(st.integers(0, 2**64 - 1), st.integers(1, 5), st.lists(st.integers(0, 7), max_size=4))
def test_rate_coding_draws_the_same_spikes_wherever_a_run_is_cut(seed: int, units: int, lengths: list[int]) -> None:
    sample, ends = np.full((1, units), 0.5, np.float32), np.cumsum([1, *lengths])
    plain = spec(Coding.RATE)
    task = plain.model_copy(update={"input": plain.input.model_copy(update={"shape": (units,)})})
    whole = encode(sample, task, int(ends[-1]), seed).steps
    for first, end in pairwise([0, *ends.tolist()]):
        if end > first:
            assert np.array_equal(encode(sample, task, end - first, seed, first).steps, whole[first:end])
            twice = encode(np.repeat(sample, 2, 0), task, end - first, [0, seed], first)
            assert np.array_equal(twice.steps[:, 1:], whole[first:end])
            assert np.array_equal(encode_next(sample[0], task, end - first, seed, first).steps, whole[first:end])


def test_rate_coding_spikes_where_a_draw_is_below_the_value_and_not_where_it_is_the_value() -> None:
    # The seed's first draw, the top 24 of Philox's 64 bits: at just that value nothing spikes, at the next it does.
    draw = int(np.random.Philox(key=3).random_raw(1)[0] >> np.uint64(40))
    at, above = np.float32(draw * 2.0**-24), np.float32((draw + 1) * 2.0**-24)
    for seed in (3, [3, 3]):
        steps = encode(np.array([[at, 0], [above, 0]], np.float32), spec(Coding.RATE, 1), seed=seed).steps
        assert steps[0, :, 0].tolist() == [0, 1]


@given(seed=st.integers(0, MAX_SEED), place=st.integers(0, 6), steps=st.integers(1, 9))
def test_a_seed_gives_the_same_spikes_at_any_place_in_a_batch_and_for_longer(seed: int, place: int, steps: int) -> None:
    sample = np.array([[0.3, 0.7]], np.float32)
    batch = np.random.default_rng(0).random((7, 2), np.float32)
    batch[place] = sample
    alone = encode(sample, spec(Coding.RATE), steps, seed).steps
    np.testing.assert_array_equal(encode(batch, spec(Coding.RATE), steps, seed).steps[:, place], alone[:, 0])
    seeds = [seed + 1 if seed < MAX_SEED else 0] * 7
    seeds[place] = seed
    np.testing.assert_array_equal(encode(batch, spec(Coding.RATE), steps, seeds).steps[:, place], alone[:, 0])
    np.testing.assert_array_equal(encode(sample, spec(Coding.RATE), steps + 4, seed).steps[:steps], alone)


def test_a_seeds_spikes_never_change() -> None:
    # Written down once: clients rely on a seed's answer across versions, machines and engines.
    steps = encode(np.array([[0.5, 0.5]], np.float32), spec(Coding.RATE, 8), seed=42).steps[:, 0]
    assert steps.astype(int).tolist() == [[0, 1], [0, 1], [1, 1], [1, 1], [0, 0], [1, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_that_is_no_unsigned_64_bit_integer_is_refused(seed: int) -> None:
    with pytest.raises(InvalidInput, match=rf"seed is {seed}, expected an integer from 0 to {MAX_SEED}"):
        encode(np.zeros((1, 2), np.float32), spec(Coding.RATE), seed=seed)


@pytest.mark.parametrize("seeds", [1, 3])
def test_as_many_seeds_are_taken_as_there_are_samples(seeds: int) -> None:
    with pytest.raises(InvalidInput, match=rf"seed holds {seeds} seeds for 2 samples, expected one for each"):
        encode(np.zeros((2, 2), np.float32), spec(Coding.RATE), seed=[0] * seeds)


def test_both_ends_of_the_declared_range_are_in_it() -> None:
    assert encode(np.array([[-2, 10]], np.float32), spec(Coding.DIRECT, low=-2)).steps.tolist() == [[[-2, 10]]]


@pytest.mark.parametrize("value", [-0.5, 10.5, np.nan, np.inf])
def test_a_value_outside_the_declared_range_is_refused_with_its_place(value: float) -> None:
    with pytest.raises(InvalidInput, match=r"inputs\[1\]\[0\] is \S+, expected 0 to 10"):
        encode(np.array([[0, 1], [value, 1]], np.float32), spec(Coding.DIRECT))


@pytest.mark.parametrize(
    ("coding", "shape", "time_steps", "sentence"),
    [
        (Coding.DIRECT, (1, 3), None, "each sample of inputs has shape 3, expected 2"),
        (Coding.DIRECT, (1, 2, 2), None, "each sample of inputs has shape 2×2, expected 2"),
        (Coding.SPIKES, (1, 2), None, "each sample of inputs has shape 2, expected time_steps×2"),
        (Coding.SPIKES, (1, 4, 2), 5, "time_steps is 5, but the inputs have 4 steps"),
        (Coding.SPIKES, (1, 0, 2), None, "a raster in inputs has 0 steps, expected at least 1"),
        (Coding.CURRENT, (1, 2), None, "each sample of inputs has shape 2, expected time_steps×2"),
        (Coding.CURRENT, (1, 4, 2), 5, "time_steps is 5, but the inputs have 4 steps"),
        (Coding.CURRENT, (1, 0, 2), None, "a sample in inputs has 0 steps, expected at least 1"),
        (Coding.DIRECT, (1, 2), 0, "time_steps is 0, expected at least 1"),
    ],
)
def test_a_wrong_shape_is_an_error(
    coding: Coding, shape: tuple[int, ...], time_steps: int | None, sentence: str
) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        encode(np.zeros(shape, np.float32), spec(coding), time_steps)


def test_one_step_stands_for_all_only_where_it_is_one_or_all() -> None:
    with pytest.raises(ValueError, match=r"shape is 2×1×4, expected 1 or 3 steps"):
        DenseInputs(np.zeros((2, 1, 4), np.float32), 3)
