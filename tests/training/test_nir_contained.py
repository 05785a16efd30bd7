"""Damaged and hostile NIR files: each is one sentence, whatever HDF5 does with it, and within bounds."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from tests.nir_graphs import lif, stack, written
from training.errors import InvalidGraph
from training.nir.file import read

SECONDS = 2.0  # some ten times what a whole file takes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path, stack((2,), (2,), fc=nir.Linear(np.ones((2, 2), np.float32)), lif=lif(2)))


def places(content: bytearray, signature: bytes) -> Iterator[int]:
    """Return where HDF5's blocks of one kind begin."""
    at = content.find(signature)
    while at >= 0:
        yield at
        at = content.find(signature, at + 1)


def refusal(path: Path) -> str | None:
    """Return why a file is refused, or None where it is read."""
    try:
        read(path, SECONDS)
    except InvalidGraph as refused:
        return str(refused)
    return None


def test_a_file_that_takes_too_long_is_given_up(path: Path) -> None:
    with pytest.raises(InvalidGraph, match=r"graph.nir': it could not be read within 0.001 s"):
        read(path, 0.001)


# The next two files do that to HDF5 2.0; a version that finds the damage itself says that it is no NIR file.


def test_a_file_that_sends_hdf5_round_a_circle_is_given_up(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # A heap of texts: "GCOL", version, its size (8 bytes); then each text's index and count, and its size at offset 8.
    # The next one begins 16 bytes and that size further on: with 2**64 - 16, where it is already.
    heap = next(places(content, b"GCOL"))
    struct.pack_into("<Q", content, heap + 16 + 8, 2**64 - 16)
    path.write_bytes(content)
    with pytest.raises(InvalidGraph, match=r"graph.nir': it (could not be read within 2 s|is not a NIR file)"):
        read(path, SECONDS)


def test_a_file_that_crashes_hdf5_crashes_another_process(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # A group's tree: "TREE", kind, level, entries, two neighbours, a key, and at offset 32 where its first child is.
    # The third group is the one of the nodes; its tree is made its own child, and HDF5 descends until its stack is full.
    _, _, tree, *_ = places(content, b"TREE")
    content[tree + 5] = 1
    struct.pack_into("<Q", content, tree + 32, tree)
    path.write_bytes(content)
    with pytest.raises(InvalidGraph, match=r"graph.nir': (the process that read it crashed|it is not a NIR file)"):
        read(path)


@pytest.mark.parametrize("inner", ["node/nodes", "node/metadata"])
def test_groups_in_a_circle_are_refused(path: Path, inner: str) -> None:
    with h5py.File(path, "a") as file:
        group = file.require_group(inner)
        # Two ways round: 2**32 groups, were each path to one followed as deep as graphs may lie.
        group["left"], group["right"] = (file["node"], file["node"]) if inner == "node/nodes" else (group, group)
    with pytest.raises(InvalidGraph, match="is a group that the file holds elsewhere too"):
        read(path)


def test_damage_of_any_kind_is_one_sentence_or_none(path: Path) -> None:
    whole = path.read_bytes()
    drawn = random.Random(5)  # noqa: S311
    refusals = []
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(drawn.choice([1, 4, 16])):
            content[drawn.randrange(4000)] = drawn.randrange(256)
        path.write_bytes(content)
        refusals.append(refusal(path))
    sentences = [sentence for sentence in refusals if sentence is not None]
    assert len(sentences) > 10
    assert [sentence for sentence in sentences if "\n" in sentence or not sentence.startswith(f"'{path}': ")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a bound on its memory")
def test_the_process_that_reads_cannot_take_all_memory() -> None:
    program = "from training.nir.limits import *; limit_this_process(); bytearray(MOST_MEMORY)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == "MemoryError"
