"""A table with a row for each sample: a CSV, or a DataFrame's Parquet, read by pandas."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from spikeserve.training.data.numpy_files import explained
from spikeserve.training.data.samples import Arrays
from spikeserve.training.errors import InvalidData
from spikeserve.training.files import memory, require_plain

SUFFIXES = (".csv", ".parquet")
LABELS = ("label", "labels", "class", "target")  # what people call the column of the labels


def read_table(path: Path) -> tuple[Arrays, str]:
    """Return x (rows, features) and y (rows,) of a table, and a sentence that says which columns they are.

    The label is the column of a name in LABELS, else the last one. A column that counts the rows is left out, since it
    says the class of rows that are sorted. Raises InvalidData.
    """
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
    called = [name for name in frame.columns if str(name).strip().lower() in LABELS]
    label = called[0] if called else frame.columns[-1]
    if len(called) > 1 or frame[label].nunique() > len(frame) / 2:
        but = f"so is '{called[1]}'" if called[1:] else "most of its values are different"
        raise InvalidData(f"'{path}': column '{label}' is taken for the label, but {but}; name one column 'label'")
    steps = frame.drop(columns=label).select_dtypes("integer").diff().iloc[1:]
    counts = [name for name in steps if 1 < len(steps) == steps[name].eq(1).sum()]
    frame, labels = frame.drop(columns=[label, *counts]), frame[label]
    for name, column in [*frame.items(), (label, labels)]:
        absent = column.isna()
        if name != label and not pd.api.types.is_numeric_dtype(column):
            absent |= pd.to_numeric(column, errors="coerce").isna()
            absent.iloc[0] |= not absent.any()  # such as dates, which pandas takes for numbers
        if absent.any():
            row, expected = int(absent.argmax()), "class" if name == label else "number"
            raise InvalidData(
                f"'{path}': column '{name}' has '{column.iloc[row]}' in row {row + 1}, expected a {expected}: fill the "
                "gap, or leave out the row or column"
            )
    y = labels.to_numpy(np.float64) if pd.api.types.is_numeric_dtype(labels) else labels.to_numpy(str)
    left_out = f", and column '{counts[0]}', which counts the rows, is left out" if counts else ""
    return {"x": frame.to_numpy(np.float64), "y": y}, (
        f"{path.name}: {len(y)} samples of {frame.shape[1]} features, '{frame.columns[0]}' to '{frame.columns[-1]}'; "
        f"their class is column '{label}'{left_out}"
    )
