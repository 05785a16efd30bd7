"""Files that a user names: what is no plain file, or too large, is refused before it is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spikeserve.training.files import read_bytes, require_plain


def why(path: Path, most: int = 8) -> str:
    """Return the sentence of both functions about a path; they have to agree."""
    said = set()
    for function in (require_plain, read_bytes):
        with pytest.raises(OSError) as error:  # noqa: PT011  (its text is compared below)
            function(path, most)
        said.add(str(error.value.strerror))
    (sentence,) = said
    return sentence


def test_a_plain_file_or_a_link_to_one_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 8) == b"12345678"
    assert why(tmp_path / "file", 7) == "it has 8 bytes, expected at most 7"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert why(tmp_path / "pipe") == "it is a pipe, a socket or a device, expected a file"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("/dev/zero", "it is a pipe, a socket or a device, expected a file"),
        (".", "Is a directory"),
        ("nowhere", "No such file or directory"),
        ("a\0b", "no file has such a name"),
        ("a" * 300, "File name too long"),
    ],
)
def test_what_is_no_file_is_refused(name: str, sentence: str, tmp_path: Path) -> None:
    assert why(tmp_path / name) == sentence


def test_a_file_that_says_it_is_empty_is_read_no_further_than_its_bound() -> None:
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("there is no /proc here")
    assert path.stat().st_size == 0
    with pytest.raises(OSError, match="expected at most 8"):
        read_bytes(path, 8)
