"""Events as columns: what people call the time, place and polarity of an event, and columns as event records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.records import ON, RECORD, Records, Times
from spikeserve.models.errors import InvalidInput

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


def named(names: Sequence[str], where: str) -> dict[str, int]:
    """Return which of `names` each field is: of t and unit, or of t, p, y and x; raises InvalidInput for a lack."""
    given = {name.lower(): place for place, name in enumerate(names)}
    found = {ours: given[name] for ours, theirs in FIELDS.items() for name in theirs if name in given}
    wanted = ("t", "unit") if "unit" in found else ("t", "p", "y", "x")
    for field in wanted:
        if field not in found:
            raise InvalidInput(f"{where} has no field '{field}' but {', '.join(names)[:MAX_NAMES] or 'none'}, {WANTED}")
    return {field: found[field] for field in wanted}


def from_columns(columns: Mapping[str, NDArray[Any]], where: str) -> tuple[Times, Records]:
    """Return the times of events in microseconds, and their records, both (events,).

    `columns` has t and unit, or t, x, y and p, each (events,) of whole numbers in any type; a polarity is on above 0.
    The records' own times are left out. Raises InvalidInput.
    """
    whole = {name: _whole(column, name, where) for name, column in columns.items()}
    records = np.zeros(len(whole["t"]), RECORD)
    records["x"] = whole["unit"] if "unit" in whole else whole["x"]
    if "y" in whole:
        records["y"] = whole["y"] | np.where(whole["p"] > 0, ON, 0)
    return whole["t"], records


def _whole(column: NDArray[Any], name: str, where: str) -> NDArray[np.int64]:
    """Return a column as integers; raises InvalidInput for what is none, and for what is out of its range."""
    if column.ndim != 1 or column.dtype.kind not in "biuf":
        raise InvalidInput(f"{where}: {name} is {column.dtype} of {column.ndim} axes, expected one axis of numbers")
    least, most = (-MOST[name] if name in ("t", "p") else 0), MOST[name]
    if column.dtype.kind == "f":
        wrong = ~np.isfinite(column) | (column != np.floor(column))
    else:
        wrong = np.zeros(len(column), np.bool_)
    with np.errstate(invalid="ignore"):
        wrong |= (column < least) | (column >= most)
    if wrong.any():
        at = int(wrong.argmax())
        unit = "whole microseconds" if name == "t" else f"a whole number from {least} to {most - 1}"
        raise InvalidInput(f"{where}: {name} of event {at} is {column[at]:g}, expected {unit}")
    return column.astype(np.int64)
