"""What each kind of data keeps: samples with their labels, splits by the seed, bounds, one sentence for any damage."""

import os
import random
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeserve.models.spec import Coding
from spikeserve.training.data.dataset import Dataset, Split
from spikeserve.training.errors import InvalidData
from tests.contracts.datasets import KINDS, Kind


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the kind, which tests only read."""
    kind.write(path := tmp_path_factory.mktemp("written"))
    return path


def splits(data: Dataset) -> tuple[Split, Split, Split]:
    return data.training, data.validation, data.test


def samples(split: Split) -> Iterator[Any]:
    """Yield each sample as (its own steps, …)."""
    for number, sample in enumerate(split.samples):
        yield sample if split.lengths is None else sample[: split.lengths[number]]


def test_samples_keep_their_labels_and_each_is_in_one_split(kind: Kind, folder: Path) -> None:
    data, seen = kind.load(folder), set()
    steps = () if kind.steps is None else (kind.steps,)
    assert tuple(map(len, splits(data))) == kind.sizes
    for split in splits(data):
        assert split.samples.shape[1:] == (*steps, *kind.shape) == (*steps, *data.declared.shape)
        places = [
            np.average(np.arange(kind.shape[-1]), weights=sample.reshape(-1, kind.shape[-1]).sum(axis=0))
            for sample in samples(split)
        ]
        assert {*split.labels} == {*kind.labels}
        assert max(np.array(places)[split.labels == kind.labels[0]]) < min(
            np.array(places)[split.labels != kind.labels[0]]
        )
        seen |= {(len(sample), sample.tobytes()) for sample in samples(split)}
    assert len(seen) == sum(kind.sizes)


def test_a_seed_gives_one_split_and_chooses_no_sample_of_the_files_own(kind: Kind, folder: Path) -> None:
    first, again, other = (kind.load(folder, split_seed=seed) for seed in (0, 0, 2))
    for one, same in zip(splits(first), splits(again), strict=True):
        np.testing.assert_array_equal(one.samples, same.samples)
        np.testing.assert_array_equal(one.labels, same.labels)
    assert np.array_equal(first.test.samples, other.test.samples) is (kind.own_splits > 0)
    assert np.array_equal(first.validation.samples, other.validation.samples) is (kind.own_splits == 2)


def test_files_that_are_not_there_are_asked_for(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=kind.absent):
        kind.load(tmp_path / "absent")


HOLDS = "(holds events, expected spikes|becomes spikes, expected spikes)"


def test_what_holds_events_is_refused_as_values(kind: Kind, folder: Path) -> None:
    if kind.dataset in ("arrays", "mnist"):
        assert kind.load(folder).declared.events is None
        return
    with pytest.raises(InvalidData, match=f"^coding: is 'direct', but dataset '{kind.dataset}' {HOLDS}"):
        kind.load(folder, Coding.DIRECT)


def refusal(kind: Kind, folder: Path) -> str | None:
    """Return the one sentence by which a damaged file is refused, or None where it is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's own, of headers that Python 2 could have written
        try:
            kind.load(folder)
        except InvalidData as error:
            sentence = str(error)
        else:
            return None
    assert re.findall(r"\n|pickle", sentence) == []  # NumPy advises to trust the file
    return sentence


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**42)  # which takes no room on the disk


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "of another kind": lambda path: path.write_bytes(b"no such thing\n" * 9),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "larger than any real one": huge,
    "a pipe": pipe,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_none_is_refused_by_one_sentence_that_names_it(kind: Kind, damage: str, tmp_path: Path) -> None:
    path = kind.write(tmp_path)
    DAMAGE[damage](path)
    sentence = refusal(kind, tmp_path)
    assert (sentence is None) == (damage in kind.still_whole)
    assert damage != "of another kind" or re.search(kind.unread, sentence or "")
    assert sentence is None or f"'{path}'" in sentence or f"'{path.parent}'" in sentence


def test_wherever_bytes_are_damaged_a_file_is_read_or_refused_by_one_sentence(kind: Kind, tmp_path: Path) -> None:
    drawn = random.Random(3)  # noqa: S311
    for number in range(4):
        (folder := tmp_path / str(number)).mkdir()
        path = kind.write(folder)
        content = bytearray(path.read_bytes())
        for _ in range(drawn.choice([1, 2, 6])):
            content[drawn.randrange(len(content))] = drawn.choice(b"()[]{}'\"\\#,:L0-\n\r\0 \xff")
        path.write_bytes(content)
        refusal(kind, folder)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.limit])
def test_what_memory_cannot_hold_is_refused_unread(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (kind := KINDS[name]).write(tmp_path)
    bound, most, sentence = kind.limit or pytest.fail("it has a bound")
    monkeypatch.setattr(bound, (lambda: most) if bound.endswith("memory") else most)
    with pytest.raises(InvalidData, match=sentence):
        kind.load(tmp_path)
