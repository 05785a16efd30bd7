"""Tables and pictures: read as people bring them, and refused in one sentence that names the place."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spikeserve.models.spec import Coding
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.errors import InvalidData

COUNT = np.arange(40)
FRAME = pd.DataFrame({"a": COUNT % 7 / 4, "ü c": COUNT % 5, "class": np.array(["None", "é"])[COUNT % 2]})
NUMBERED = FRAME.set_axis([0, 1, 2], axis=1)


def read(path: Path, text: str | bytes) -> Dataset:
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
    first = read(tmp_path / "0.csv", ways["plain.csv"])
    assert first.read_as == "0.csv: 40 samples of 2 features, 'a' to 'ü c'; their class is column 'class'"
    assert first.class_names == ("None", "é")
    for name, text in ways.items():
        data = read(tmp_path / name, text)
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
        (FRAME.to_csv().encode("utf-16"), "cannot be read as a table: 'utf-8' codec can't decode byte"),
        (FRAME.assign(b="Paris").to_csv(), "column 'b' has 'Paris' .*, or leave out the row or column"),
        (FRAME.assign(a=FRAME["a"].where(COUNT != 4)).to_csv(), "column 'a' has 'nan' in row 5, expected a num"),
        (FRAME.assign(a=FRAME["a"].where(COUNT != 4, "NA")).to_csv(), "column 'a' has 'NA' in row 5, ex"),
        (FRAME.to_csv(sep=";", decimal=","), "column 'a' has '0,0' in row 1, expected a number"),
        (FRAME.assign(**{"class": FRAME["class"].where(COUNT > 0)}).to_csv(), "column 'class' has 'nan' in row 1, ex"),
        (FRAME.assign(Label=1).to_csv(), "column 'class' is taken for the label, but so is 'Label'"),
        (FRAME.assign(z=COUNT * 1.5).drop(columns="class").to_csv(), "column 'z' is taken .* most of its values are"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_names_the_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(InvalidData, match=f"table.csv': {said}"):
        read(tmp_path / "table.csv", text)


def pictures(folder: Path, *modes: str, suffix: str = ".png") -> Path:
    for number in range(24):
        path = folder / ("ka", "犬")[number % 2] / f"{number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 5), number * 10).convert(modes[number % len(modes)]).save(path, lossless=True)
    return folder


@pytest.mark.parametrize(
    ("suffix", "modes", "channels"),
    [
        (".png", ["L", "1"], 1),
        (".png", ["L", "RGB", "RGBA", "P", "LA"], 3),
        (".webp", ["RGB"], 3),
        (".BMP", ["L"], 1),
    ],
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
