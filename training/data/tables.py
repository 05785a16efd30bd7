"""A table with a row for each sample: a CSV, or a DataFrame's Parquet, read by pandas."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spikeserve.models.recordings.columns import FIELDS
from spikeserve.training.data.numpy_files import explained
from spikeserve.training.data.samples import Arrays
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import memory, require_plain

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
LABELS = ("label", "labels", "class", "target")  # what people call the column of the labels, besides y
SERIES = ("sample", "sample_id", "series", "id")  # what they call the column of the series that a reading belongs to
MOST_WORDS = 20  # different ones of a column: each becomes a column of 0 and 1
MOST_NAMED = 20  # columns in a sentence
MOST_CHARACTERS = 200  # of a feature's name


class Table(NamedTuple):
    """A table as x (rows, features) and y (rows,), its features' names, and sentences about how it was read."""

    arrays: Arrays
    features: tuple[str, ...]
    read_as: str
    warnings: tuple[str, ...]


def read_table(path: Path) -> Table:
    """Return a table whose words are columns of 0 and 1; raises InvalidData.

    The label is the column of a name in LABELS, else y, else the last one. A column that counts the rows is left out,
    since it says the class of rows that are sorted.
    """
    frame = _read(path)
    label, labels = _label_of(frame, path)
    steps = frame.drop(columns=label).select_dtypes("integer").diff().iloc[1:]
    counts = [name for name in steps if 1 < len(steps) == steps[name].eq(1).sum()]
    called = {name: str(name).strip().lower() for name in frame.columns}
    readings = [n for n in called if called[n] in FIELDS["t"] or (called[n] in SERIES and frame[n].duplicated().any())]
    frame, words = _numbers(frame.drop(columns=[label, *counts]), labels, path)
    features = tuple(str(name)[:MOST_CHARACTERS] for name in frame.columns)
    read_as = (
        f"{path.name}: {len(labels)} samples of {len(features)} features, '{features[0]}' to '{features[-1]}'; "
        f"their class is column '{label}'"
    )
    read_as += f", and column '{counts[0]}', which counts the rows, is left out" if counts else ""
    read_as += f"; each word of {words} becomes a column of 0 and 1, such as '{features[-1]}'" if words else ""
    timed = _joined([*map(repr, readings)])
    warning = f"{timed}: each row is taken for a sample; 'Gaps and uneven steps' in docs/data.md has series"
    y = labels.to_numpy({"i": np.int64, "u": np.int64, "f": np.float64, "b": np.float64}.get(labels.dtype.kind, str))
    return Table({"x": frame.to_numpy(np.float64), "y": y}, features, read_as, (warning,) if readings else ())


def _read(path: Path) -> pd.DataFrame:
    """Return the rows of a file, in which an empty cell is missing; raises InvalidData."""
    with explained(path, "a table"):
        import pandas as pd  # here, since it takes a second and is an extra

        require_plain(path, memory())
        if path.suffix.lower() == ".parquet":
            from pyarrow.parquet import read_metadata

            size = read_metadata(path)
            if 8 * size.num_rows * size.num_columns > memory():
                raise ValueError(f"it has {size.num_rows:,} rows of {size.num_columns}, more than the memory holds")
            frame = pd.read_parquet(path, engine="pyarrow")
        else:
            with path.open(encoding="utf-8-sig") as file:
                first = file.readline()
            mark = max(",;\t|", key=first.count)
            numbers = re.findall(rf"(?<![^{mark}])[+-]?[\d.]+(?![^{mark}\s])", first)
            header = 0 if numbers == list(map(str, range(len(numbers)))) else None  # those are pandas' own names
            # Classes may be called None or NA: only an empty cell is missing.
            missing = {"keep_default_na": False, "na_values": [""]}
            frame = pd.read_csv(path, sep=mark, header=header, skipinitialspace=True, low_memory=False, **missing)
    if len(frame.columns) < 2 or not len(frame):
        raise InvalidData(f"'{path}': {len(frame)} rows of {len(frame.columns)} columns, expected features and a label")
    return frame


def _label_of(frame: pd.DataFrame, path: Path) -> tuple[str, pd.Series[Any]]:
    """Return the name and the cells of the column of the labels; raises InvalidData where it holds no classes."""
    names = {name: str(name).strip().lower() for name in frame.columns}
    called = [name for name in names if names[name] in LABELS] or [name for name in names if names[name] == "y"]
    label = called[0] if called else frame.columns[-1]
    labels = frame[label]
    real = labels[labels.mod(1).gt(0)] if labels.dtype.kind == "f" else labels[:0]
    if called[1:] or len(real) or labels.nunique() > len(frame) / 2:
        why = f"it has {real.iloc[0]:g}" if len(real) else "most of its values are different"
        why = f"so is '{called[1]}'" if called[1:] else why
        cure = "leave one out" if called[1:] else "expected a few whole numbers or names"
        other = "" if called else "; name the column of the label 'label'"
        raise InvalidData(
            f"'{path}': column '{label}' is taken for the label, but {why}: fit learns classes, one for each sample, "
            f"{cure}{other}"
        )
    return label, labels


def _numbers(frame: pd.DataFrame, labels: pd.Series[Any], path: Path) -> tuple[pd.DataFrame, str]:
    """Return the features as numbers, with a column of 0 and 1 for each word, and the names of columns of words.

    Raises InvalidData, which names all columns that cannot be used.
    """
    import pandas as pd

    words: dict[str, pd.Series[Any]] = {}
    faults = defaultdict[str, list[str]](list)
    for name, column in [*frame.items(), (labels.name, labels)]:
        wrong, expected = column.isna(), "a number: fill the gap, or leave out the row or column"
        if column is labels:
            expected = expected.replace("number", "class")
        elif not pd.api.types.is_numeric_dtype(column):
            text = column.astype(str).str.strip()
            commas, is_number = text.str.fullmatch(r"[+-]?\d*,\d+"), pd.to_numeric(column, errors="coerce").notna()
            if commas.any():
                wrong, expected = commas, "a point, not a decimal comma"
            elif is_number.any():
                wrong = ~is_number
                wrong.iloc[0] |= not wrong.any()  # such as dates, which pandas takes for numbers
            elif not wrong.any() and (count := text.nunique()) > MOST_WORDS:
                faults[f"numbers, or at most {MOST_WORDS} words: leave the column out"].append(
                    f"column '{name}' has {count} different words"
                )
            else:
                words[name], expected = text, expected.replace("number", "word")
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            faults[expected].append(f"column '{name}' has '{column.iloc[row]}' in row {row + 1}")
    if faults:
        said = (f"{_joined(places)}, expected {expected}" for expected, places in faults.items())
        raise InvalidData(f"'{path}': {'; '.join(said)}")
    return pd.get_dummies(frame.assign(**words), columns=list(words), prefix_sep="=", dtype=float), _joined(
        [f"'{name}'" for name in words]
    )


def _joined(parts: list[str]) -> str:
    return ", ".join(parts[:MOST_NAMED]) + (f" and {len(parts) - MOST_NAMED} others" if parts[MOST_NAMED:] else "")
