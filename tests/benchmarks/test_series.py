"""The two baselines of sequences, by the same in plain NumPy, and the table of a small file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import series


def test_a_kernels_features_are_its_largest_sum_and_the_share_of_positive_ones() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(3, 2, 30)).astype(np.float32)
    sees, weights, lengths, biases, dilations, paddings = drawn = series.draw_kernels(rng, 2, 30)
    assert (dilations.max(), {*lengths}, {*sees.sum(axis=1)}) == (4, {7, 9, 11}, {1, 2})
    features = np.empty((3, 2 * series.KERNELS), np.float32)
    series.convolve.call(samples, *drawn, features)
    for kernel in range(20):
        filled = np.pad(samples, ((0, 0), (0, 0), (paddings[kernel],) * 2))
        taps = np.arange(lengths[kernel]) * dilations[kernel]
        places = np.arange(filled.shape[2] - taps[-1])[:, np.newaxis] + taps
        kept = np.where(sees[kernel][:, np.newaxis], weights[kernel, :, : len(taps)], 0)
        sums = np.einsum("scpt,ct->sp", filled[:, :, places], kept) + biases[kernel]
        assert np.allclose(features[:, 2 * kernel], (sums > 0).mean(axis=1))
        assert np.allclose(features[:, 2 * kernel + 1], sums.max(axis=1), rtol=1e-4, atol=1e-4)


def test_a_pulse_that_is_early_is_nearest_to_the_pulse_and_not_to_silence() -> None:
    # 20 steps are a band of 2: a pulse two steps early is at no distance, one that is five early farther than silence.
    pulse, early, silence, much = (np.zeros((1, 20), np.float32) for _ in range(4))
    pulse[0, 10] = early[0, 8] = much[0, 5] = 1.0
    train, labels = np.stack([silence, pulse]), np.array([0, 1])
    assert series.warping(train, labels, np.stack([early, much, silence]), 0).tolist() == [1, 0, 0]


def test_each_method_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = np.sin(np.arange(24) * (0.4 + 0.5 * y[:, np.newaxis])) + rng.normal(0, 0.1, (60, 24))
    np.savez(tmp_path / "waves.npz", x=x[..., np.newaxis], y=y)
    monkeypatch.setattr("sys.argv", ["series", str(tmp_path / "waves.npz"), "--methods", "kernels", "warping"])
    series.main()
    assert re.search(r"\| waves \| 100\.0 % \| [\d.]+ \| 100\.0 % \| [\d.]+ \|$", capsys.readouterr().out.strip())
