"""Data sets: the same split for a seed, and one clear sentence for data that cannot be trained on."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.dataset import Split
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.data.splits import three_ways
from spikeserve.training.errors import InvalidData
from spikeserve.training.fit.loop import _batches


def arrays(path: Path, x: Any, y: Any, coding: Coding = Coding.DIRECT, **config: Any) -> Dataset:
    np.savez(path / "data.npz", x=x, y=y)
    return load(DataConfig(dataset="arrays", file=path / "data.npz", **config), coding)


X = np.random.default_rng(0).random((40, 3))
Y = np.arange(40) % 2


def test_digits_hold_out_a_fifth_of_each_class() -> None:
    data = load(DataConfig(), Coding.DIRECT)
    assert (len(data.training), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert data.test.samples.shape == (360, 1, 8, 8)
    assert (data.test.samples.min(), data.test.samples.max()) == (0, 16)
    counts = np.bincount(data.test.labels)
    assert counts.min() >= 35
    assert counts.max() <= 37


def test_the_test_split_hangs_on_the_split_seed_alone_and_shares_no_sample() -> None:
    first, again = load(DataConfig(), Coding.DIRECT), load(DataConfig(validation_share=0.3), Coding.DIRECT)
    np.testing.assert_array_equal(first.test.samples, again.test.samples)
    other = load(DataConfig(split_seed=1), Coding.DIRECT)
    assert not np.array_equal(first.test.samples, other.test.samples)
    training = {sample.tobytes() for sample in first.training.samples}
    assert not training & {sample.tobytes() for sample in first.test.samples}


def test_arrays_take_any_integers_or_names_as_classes(tmp_path: Path) -> None:
    assert arrays(tmp_path, X, Y * 5 - 3).class_names == ("-3", "2")
    named = arrays(tmp_path, X, np.where(Y == 0, "cat", "dog"))
    assert named.class_names == ("cat", "dog")
    assert set(named.test.labels.tolist()) == {0, 1}


def test_arrays_of_spikes_keep_their_time_axis(tmp_path: Path) -> None:
    data = arrays(tmp_path, np.ones((40, 7, 3)) * (np.arange(40) % 3 > 0)[:, None, None], Y, Coding.SPIKES)
    assert data.declared.shape == (3,)
    assert data.training.samples.shape[1:] == (7, 3)
    assert (data.declared.scale, data.declared.offset) == (1, 0)


def test_values_outside_the_declared_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"x: values go from .* outside low 0 to high 0.5"):
        arrays(tmp_path, X, Y, low=0, high=0.5)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"not a zip")
    with pytest.raises(InvalidData, match=r"cannot be read as an \.npz of numbers: it holds .* none of NumPy's"):
        load(DataConfig(dataset="arrays", file=tmp_path / "data.npz"), Coding.DIRECT)
    with pytest.raises(InvalidData, match="file: not given"):
        load(DataConfig(dataset="arrays"), Coding.DIRECT)


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(
        InvalidData,
        match="'cifar' is not one, expected digits, mnist, fashion-mnist, mnist-5000, arrays, events, spoken-digits, n",
    ):
        load(DataConfig(dataset="cifar"), Coding.DIRECT)


def write_idx(path: Path, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    path.write_bytes(struct.pack(f">I{array.ndim}I", 0x800 | array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize(("dataset", "kind"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_a_users_own_copy_of_mnist_is_read(dataset: str, kind: str, tmp_path: Path) -> None:
    raw = tmp_path / kind / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, size in (("train", 100), ("t10k", 20)):
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (size, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(size) % 10).astype(np.uint8))
    data = load(DataConfig(dataset=dataset, folder=tmp_path), Coding.DIRECT)
    assert (len(data.training), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.training.samples.shape[1:] == (1, 28, 28)
    assert data.declared.normalised_range == (0, 255 / 256)


def test_mnist_that_is_not_there_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"MNIST is not in .*raw.* put its four idx files there or pass --download"):
        load(DataConfig(dataset="mnist", folder=tmp_path), Coding.DIRECT)


def test_whatever_the_seed_no_sample_is_left_out_of_the_splits_or_the_batches_of_an_epoch() -> None:
    labels, every = np.repeat(np.arange(3), (11, 20, 40)), np.arange(71)
    split = Split(every[:, np.newaxis], labels)
    for seed, size, groups in product(range(5), (1, 7, 70, 71, 90), (None, every // 2)):
        batches = [each.samples[:, 0] for _, each in _batches(split, size, np.random.default_rng(seed))]
        for parts in (batches, three_ways(labels, DataConfig(split_seed=seed), groups)):
            assert sorted(np.concatenate(parts)) == [*every]
