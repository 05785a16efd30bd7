"""What is written in one piece is on the disk before it has its name: a power cut leaves the whole of it or nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.fs import LocalFileSystem

from spikeserve.models.bundle.remote import copied
from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.spec import Coding
from spikeserve.plugins.nir.file import write
from spikeserve.plugins.nir.graph import NestedGraph
from spikeserve.plugins.ray.job import write_whole
from spikeserve.service.catalog import mirror
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import load
from spikeserve.training.fit.checkpoint import Progress
from tests.bundles import contents
from tests.networks import toy


class Here:
    """A repository elsewhere, whose files are on this disk."""

    def __init__(self, url: str) -> None:
        self.url, self.repository = url, ModelRepository(Path(url))
        self.versions = lambda: {name: self.repository.versions(name) for name in self.repository.names()}
        self.fingerprint = self.repository.fingerprint
        self.default = lambda: "toy"

    def copy(self, name: str, version: int, folder: Path) -> None:
        copied(lambda file: [(self.repository.home(name) / str(version) / file).read_bytes()], folder / name, version)


def publish(folder: Path) -> Path:
    ModelRepository(folder).publish(contents(toy()))
    return folder / "toy" / "1"


def pull(folder: Path) -> Path:
    publish(folder / "elsewhere")
    mirror.update(str(folder / "elsewhere"), str(folder / "here"), "latest")
    return folder / "here" / "toy" / "1"


def save(folder: Path) -> Path:
    Progress({}, {}).save(folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def bin_events(folder: Path) -> Path:
    for split in ("train", "test"):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for at in range(4):
                (folder / split / label / f"{at}.csv").write_text("t,x,y,p\n0,0,0,1\n900,1,1,0\n")
    load(DataConfig(dataset="events", folder=folder, window=1000), Coding.SPIKES)
    return next((folder / ".cache").iterdir())


def nir(folder: Path) -> Path:
    write(folder / "graph.nir", NestedGraph({}, (), {}))
    return folder / "graph.nir"


def part(folder: Path) -> Path:
    write_whole(pa.table({"sample": [0]}), LocalFileSystem(), str(folder), "part.parquet")
    return folder / "part.parquet"


@pytest.mark.parametrize(
    "writer", [publish, pull, lambda at: pull(at).parents[1] / "default", save, bin_events, nir, part]
)
def test_every_file_is_on_the_disk_before_it_has_its_name(
    writer: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, fsync = dict[int, set[str]](), os.fsync

    def record(descriptor: int) -> None:
        held[os.fstat(descriptor).st_ino] = {str(each) for each in tmp_path.rglob("*")}
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(mirror, "Remote", Here)
    written = writer(tmp_path)
    files: list[Any] = [written, *written.rglob("*")]
    assert [str(each) for each in files if str(written) in held.get(each.stat().st_ino, {str(written)})] == []
