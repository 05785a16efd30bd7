"""Events as columns: what people call the time, place and polarity of an event, and which values each may have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.errors import InvalidInput

Column = NDArray[np.int64]

MOST = {"t": 2**62, "x": 2**16, "y": 2**15, "p": 2**16, "unit": 2**16}  # what each column is below
MAX_NAMES = 100  # characters of them in a sentence
WANTED = "expected t, x, y and p, or t and unit"

# What people call each field.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity", "on"),
    "unit": ("unit", "units", "channel", "neuron"),
}

RECORD = np.dtype([("t", "<u4"), ("x", "<u2"), ("y", "<u2")])  # an event record: the highest bit of y is the polarity
ROWS = 2**15


def fields_of(array: NDArray[Any], where: str) -> dict[str, NDArray[Any]]:
    """Return the fields of a structured array by their names; raises InvalidInput for one without fields.

    Those of event records are t, counted on where their clock of 32 bits starts again, x, y and p.
    """
    if array.dtype == RECORD and array.ndim == 1:
        t = np.cumsum(np.diff(array["t"], prepend=array["t"][:1]).view(np.int32), dtype=np.int64)
        return {"t": t + array["t"][:1], "x": array["x"], "y": array["y"] % ROWS, "p": array["y"] // ROWS}
    if array.dtype.names is None:
        raise InvalidInput(f"{where} is an array without fields, of shape {array.shape}, {WANTED}")
    return {name: array[name] for name in array.dtype.names}


def named(names: Sequence[str], where: str) -> dict[str, int]:
    """Return which of `names` each field is: of t and unit, or of t, p, y and x; raises InvalidInput for a lack.

    A camera of one polarity has t, y and x alone.
    """
    places = {name.strip().lower(): place for place, name in enumerate(names)}
    named_columns = {ours: places[name] for ours, theirs in FIELDS.items() for name in theirs if name in places}
    fields = ["t", "unit"] if "unit" in named_columns else ["t", "p", "y", "x"]
    if named_columns.keys() == {"t", "x", "y"} and len(names) == len(named_columns):
        fields.remove("p")
    for field in fields:
        if field not in named_columns:
            raise InvalidInput(f"{where} has no field '{field}' but {', '.join(names)[:MAX_NAMES] or 'none'}, {WANTED}")
    return {field: named_columns[field] for field in fields}


def whole_columns(columns: Mapping[str, NDArray[Any]], where: str) -> dict[str, Column]:
    """Return columns by any of their usual names as those that `named` finds, each (events,) of whole numbers.

    They may be of any type that holds whole numbers. Raises InvalidInput.
    """
    values = list(columns.values())
    whole = {field: _whole(values[place], field, where) for field, place in named(list(columns), where).items()}
    for field, column in whole.items():
        if len(column) != len(whole["t"]):
            raise InvalidInput(f"{where}: {len(whole['t'])} t for {len(column)} {field}, expected as many of both")
    return whole


def _whole(column: NDArray[Any], name: str, where: str) -> Column:
    """Return a column as integers; raises InvalidInput for what is none, and for what is out of its range."""
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise InvalidInput(f"{where}: {name} is {column.dtype} of {column.ndim} axes, expected one axis of numbers")
    if column.dtype == np.float16:
        raise InvalidInput(f"{where}: {name} is float16, which holds no whole numbers beyond 2048, expected integers")
    least, most = (-MOST[name] if name in ("t", "p") else 0), MOST[name]
    with np.errstate(invalid="ignore"):
        wrong = ~((column >= least) & (column < most))
        if column.dtype.kind == "f":
            wrong |= column != np.floor(column)
    if wrong.any():
        at = int(wrong.argmax())
        unit = "whole microseconds" if name == "t" else f"a whole number from {least} to {most - 1}"
        raise InvalidInput(f"{where}: {name} of event {at} is {column[at]:g}, expected {unit}")
    return column.astype(np.int64)
