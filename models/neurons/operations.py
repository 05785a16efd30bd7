"""What each operation of a step computes: one NumPy function for each. This table is the definition.

Each takes and gives float32 values of any shape, and rounds once. A comparison gives 1 or 0, and is false where a value
is NaN; so `minimum` and `maximum` of NaN are their second value. Division by 0 gives an infinity, or NaN for 0 / 0. A
NaN is a NaN: which one is not defined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from spikeserve.models.spec.exponential import exponential


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda first, second: np.asarray(compare(first, second), np.float32)


def _fire_multiple(charged: Any, threshold: Any) -> Any:
    often = charged / threshold
    return np.where((charged > 0) & (often > 0), np.floor(often), np.float32(0))


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "minimum": lambda first, second: np.where(first < second, first, second),
    "maximum": lambda first, second: np.where(first > second, first, second),
    ">": _compared(np.greater),
    ">=": _compared(np.greater_equal),
    "==": _compared(np.equal),
    "select": lambda condition, yes, no: np.where(condition > 0, yes, no),
    "exp": exponential,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "trunc": np.trunc,
    "fire": _compared(np.greater_equal),
    "fire_above": _compared(np.greater),
    "fire_multiple": _fire_multiple,
    "hold": lambda value: value,
}
