"""The names of a batch job's predictions tell of all that they depend on, so that no other job's are taken for them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spikeserve.plugins.ray import __main__ as command
from spikeserve.plugins.ray.parts import Source, inputs
from tests.bundles import publish
from tests.networks import toy


class Named(Exception):
    """The names are known: nothing is to run."""


def test_another_file_or_setting_has_predictions_of_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(*flags: str) -> str:
        names = list[str]()

        def read(files: Sequence[str], job: str) -> list[Source]:
            names.extend(each.stem for each in inputs(files, job))
            raise Named

        monkeypatch.setattr(command, "inputs", read)
        words = [str(tmp_path / "toy"), str(tmp_path / "samples"), "--output", str(tmp_path / "out"), *flags]
        assert isinstance(CliRunner().invoke(command.app, words).exception, Named)
        (stem,) = names
        return stem

    publish(tmp_path, toy())
    file = tmp_path / "samples" / "x.npy"
    file.parent.mkdir()
    file.write_bytes(b"1")
    os.utime(file, (1, 1))
    changes: list[Callable[[], object]] = [
        lambda: [file.write_bytes(b"12"), *map(os.utime, [file], [(1, 1)])],
        lambda: os.utime(file, (2, 2)),
        lambda: publish(tmp_path, toy(time_steps=4)),
    ]
    names = [name(), name("--seed", "1"), name("--time-steps", "4"), name("--part-samples", "7")]
    assert name() == names[0] == name("--actors", "3")
    for change in changes:
        change()
        names.append(name())
    assert len({*names}) == len(names) == 7
