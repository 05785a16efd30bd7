"""Files of arrays whose headers lie: each is refused with a sentence before memory of that size is taken."""

from __future__ import annotations

import io
import random
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from spikeserve.training.data.numpy_files import open_npz, read_npy
from spikeserve.training.errors import InvalidData


def array(shape: tuple[int, ...], data: bytes, descr: str = "<f4") -> bytes:
    """Return an .npy that says `shape` and holds `data`."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
    return file.getvalue() + data


LIES = [
    (array((80, 16), b"\0" * 100), "cannot be read as an"),
    (array((10**20, 4), b""), "cannot be read as an"),
    (array((-1, 4), b""), "cannot be read as an"),
    (array((1,), b"", "|O"), "it holds Python objects or none of NumPy's, expected numbers, or text for labels"),
    (npy.magic(2, 0) + (2**31).to_bytes(4, "little"), "cannot be read as an"),
]


@pytest.mark.parametrize(("content", "sentence"), LIES)
def test_an_array_that_lies_is_refused_in_an_npz_and_alone(tmp_path: Path, content: bytes, sentence: str) -> None:
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(InvalidData) as error, open_npz(tmp_path / "lies.npz") as file:
        file["x"]
    assert sentence in str(error.value)
    (tmp_path / "lies.npy").write_bytes(content)
    with pytest.raises(InvalidData) as error:
        read_npy(tmp_path / "lies.npy")
    assert sentence in str(error.value)
    assert "pickle" not in str(error.value)


def test_arrays_come_back_as_they_went(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.savez_compressed(tmp_path / "x.npz", x=values, fortran=np.asfortranarray(values), y=np.array(["a", "b"]))
    with open_npz(tmp_path / "x.npz") as file:
        assert file.files == ["x", "fortran", "y"]
        np.testing.assert_array_equal(file["x"], values)
        np.testing.assert_array_equal(file["fortran"], values)
        assert file["y"].tolist() == ["a", "b"]


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n   x\n y",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1" * 5000 + b",), }",
    b"(" * 9000,
    b"{'descr': 3, 'fortran_order': False, 'shape': (2,), }",
    b"'''",
]


def test_damaged_headers_of_any_kind_are_refused_by_a_sentence(tmp_path: Path) -> None:
    # Python's parser of literals and NumPy's types have a dozen errors for them.
    whole, drawn, path = array((2,), bytes(8)), random.Random(3), tmp_path / "x.npy"  # noqa: S311
    contents = [npy.magic(1, 0) + len(each).to_bytes(2, "little") + each + bytes(8) for each in HEADERS]
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(drawn.choice([1, 2, 6])):
            damaged[drawn.randrange(10, len(whole) - 8)] = drawn.choice(b"()[]{}'\"\\#,:L0-\n\r\0 \xff")
        contents.append(bytes(damaged))
    sentences = []
    for content in contents:
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's own, of headers that Python 2 could have written
            try:
                read_npy(path)
            except InvalidData as error:
                sentences.append(str(error))
    assert len(sentences) > 400
    assert all(each.startswith(f"'{path}': ") and "\n" not in each for each in sentences)
