"""Files of arrays whose headers lie: each is refused with a sentence before memory of that size is taken."""

from __future__ import annotations

import io
import pickle
import random
import tracemalloc
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
    (array((80, 16), b"\0" * 100), "its shape 80×16 takes 5120 bytes as float32, but the file has 100"),
    (array((10**12, 4), b"\0" * 100), "takes 16000000000000 bytes as float32, but the file has 100"),
    (array((10**20, 4), b""), "takes 1600000000000000000000 bytes as float32, but the file has 0"),
    (array((2,), b"\0" * 9), "its shape 2 takes 8 bytes as float32, but the file has 9"),
    (array((-1, 4), b""), "its shape is (-1, 4), expected whole sizes"),
    (array((True, 4), b""), "its shape is (True, 4), expected whole sizes"),
    (array((1,), b"", "|O"), "holds Python objects, expected numbers, or text for labels"),
    (b"no array", "cannot be read as an"),
]


@pytest.mark.parametrize(("content", "sentence"), LIES)
def test_an_array_that_lies_is_refused_in_an_npz_and_alone(tmp_path: Path, content: bytes, sentence: str) -> None:
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(InvalidData) as error, open_npz(tmp_path / "lies.npz") as file:
        file.read("x")
    assert sentence in str(error.value)
    (tmp_path / "lies.npy").write_bytes(content)
    with pytest.raises(InvalidData) as error:
        read_npy(tmp_path / "lies.npy")
    assert sentence in str(error.value)
    assert "pickle" not in str(error.value)


@pytest.mark.parametrize("kind", ["pickle", "npy", "text", "nothing"])
def test_what_is_no_npz_is_named_without_advice_to_trust_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.npz"
    match kind:
        case "pickle":
            path.write_bytes(pickle.dumps({"x": 1}))
        case "npy":
            path.write_bytes(array((1,), b"1234"))
        case _:
            path.write_text("" if kind == "nothing" else "hello")
    with pytest.raises(InvalidData) as error, open_npz(path):
        pass
    assert str(error.value) == (
        f"'{path}': cannot be read as an .npz of numbers (File is not a zip file), expected what np.savez writes"
    )


def test_arrays_come_back_as_they_went(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.savez_compressed(tmp_path / "x.npz", x=values, fortran=np.asfortranarray(values), y=np.array(["a", "b"]))
    with open_npz(tmp_path / "x.npz") as file:
        assert file.names == ["x", "fortran", "y"]
        np.testing.assert_array_equal(file.read("x"), values)
        np.testing.assert_array_equal(file.read("fortran"), values)
        assert file.read("y").tolist() == ["a", "b"]


HEADERS = [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)",  # no bracket closes it
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n   x\n y",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1" * 5000 + b",), }",
    b"(" * 9000,
    b"-" * 9000 + b"1",
    b"'''",
    b"{'descr': 3, 'fortran_order': False, 'shape': (2,), }",
    b"",
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_is_no_literal_is_refused_whatever_python_makes_of_it(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(npy.magic(1, 0) + len(header).to_bytes(2, "little") + header + bytes(8))
    with pytest.raises(InvalidData, match=r"its header is b.*, expected descr, fortran_order and shape"):
        read_npy(path)


def test_damaged_headers_of_any_kind_are_refused_by_a_sentence(tmp_path: Path) -> None:
    whole, sentences = array((2,), bytes(8)), []
    drawn, path = random.Random(3), tmp_path / "x.npy"  # noqa: S311
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(drawn.choice([1, 2, 6])):
            content[drawn.randrange(10, len(whole) - 8)] = drawn.choice(b"()[]{}'\"\\#,:L0-\n\r\0 \xff")
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's own, of headers that Python 2 could have written
            sentences.append(refusal(path))
    assert sum(sentence is not None for sentence in sentences) > 400
    assert all(sentence is None or sentence.startswith(f"'{path}': ") for sentence in sentences)


def refusal(path: Path) -> str | None:
    """Return why a file is refused, or None where it is read."""
    try:
        read_npy(path)
    except InvalidData as error:
        return str(error)
    return None


def test_a_header_of_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    length = 2**25
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy.magic(2, 0) + length.to_bytes(4, "little") + bytes(length))
    tracemalloc.start()
    try:
        why = r"x: its header has 33,554,432 bytes, expected at most 10,000"
        with pytest.raises(InvalidData, match=why), open_npz(tmp_path / "x.npz") as file:
            file.read("x")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
