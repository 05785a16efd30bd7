"""A connection's weights as tables of the fewest bytes that hold them exactly, and how C adds them up.

The spec's sum is exact and rounded once (`models.spec.sums`), so that any way that is exact will do. Where all products
are whole multiples of one number for each output, C adds up whole numbers; otherwise it adds up products in float64.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec.network import FloatArray
from spikeserve.models.spec.sums import MANTISSA, Sum, Summation, lowest_bit
from spikeserve.plugins.c.operations import number

LEAST = 2.0**-126  # float32's least normal number
SPLIT_BITS, SPLIT_SHARE = 16, 0.2  # of a table of int16; the share of weights that may be larger
LISTED_SHARE = 1 / 3  # of weights that are not 0: with fewer these alone stand in the table, each with its output
PER_LINE = 12  # numbers of a table
INTEGERS = (("int8_t", 7), ("int16_t", 15), ("int32_t", 31))
PACKED_BITS = 3  # of a size: two such weights share a byte

Writer: TypeAlias = Callable[[str, NDArray[Any]], str]  # of an array of some values


def array(name: str, kind: str, values: Sequence[str]) -> str:
    """Write a constant array."""
    lines = (", ".join(values[start : start + PER_LINE]) for start in range(0, len(values), PER_LINE))
    body = ",\n  ".join(lines)
    return f"static const {kind} {name}[{len(values)}] = {{\n  {body}\n}};\n"


def filled(text: str, words: Mapping[str, str]) -> str:
    """Put words in the places of a text that are called so, all at once: what is put there is not looked at again."""
    return re.sub("|".join(words), lambda match: words[match[0]], text)


def floats(name: str, values: NDArray[Any]) -> str:
    """Write a constant array of float32."""
    return array(name, "float", [number(value) for value in values.ravel().tolist()])


def integers(name: str, values: NDArray[Any]) -> str:
    """Write a constant array of the narrowest integers that hold all values."""
    most = int(np.abs(values).max(initial=0))
    kind = next(kind for kind, bits in INTEGERS if most < 2**bits)
    return array(name, kind, [str(value) for value in values.ravel().astype(np.int64).tolist()])


@dataclass(frozen=True)
class Terms:
    """How the sums of one connection are made: the table's text, and pieces of C.

    `table`: its weights and bias. `accumulator`: the type of a sum. `factor(x)`: what an input is multiplied by.
    `weight(at)`: the weight at a place of the table. `add(sums, row, outputs)`: add a row of it, times `x`, to sums.
    `total(sum, output)`: the current. `split`: few weights are too large for the table, and what is missing to them is
    in a list for each row. `listed`: each row is such a list itself.
    """

    name: str
    table: str
    accumulator: str
    packed: bool
    step: float
    total_of: str
    split: bool = False
    listed: bool = False

    def factor(self, x: str) -> str:
        """Write what an input counts."""
        if self.accumulator == "double":
            return f"(double){x}"
        return f"({self.accumulator}){x}" if self.step == 1 else f"({self.accumulator})({x} * {number(1 / self.step)})"

    def weight(self, at: str) -> str:
        """Write the weight at a place of the table."""
        if self.packed:
            return f"half_byte({self.name}_weight[({at}) >> 1], ({at}) & 1)"
        return f"(double){self.name}_weight[{at}]" if self.accumulator == "double" else f"{self.name}_weight[{at}]"

    def add(self, sums: str, row: str, outputs: int, first: str = "") -> list[str]:
        """Write the lines that add a row of weights, times `x`, to so many sums; `first` is where it begins."""
        every = f"for (i = 0; i < {outputs}; i++) {sums}[i] += x * {self.weight(first or f'{row} * {outputs} + i')};"
        lines = self._add_list(self.name, sums, row) if self.listed else [every]
        return (
            [*lines, *self._add_list(f"{self.name}_more", sums, row, f" * {1 << SPLIT_BITS}")] if self.split else lines
        )

    def _add_list(self, name: str, sums: str, row: str, times: str = "") -> list[str]:
        return [
            f"for (i = {name}_row[{row}]; i < {name}_row[{row} + 1]; i++)",
            f"  {sums}[{name}_output[i]] += x * ({self.accumulator}){name}_weight[i]{times};",
        ]

    def total(self, summed: str, output: str) -> str:
        """Write the current of an output."""
        return self.total_of.replace("SUM", summed).replace("OUT", output)


def terms(
    name: str, rule: Sum, weight: FloatArray, bias: FloatArray | None, order: Sequence[int], *, may_split: bool
) -> Terms:
    """Write the weights (outputs, inputs, …) in an order of axes in which C reads them one by one, outputs last."""
    outputs = len(weight)
    units = np.array([lowest_bit(row) if row.any() else 1.0 for row in weight.reshape(outputs, -1)])
    step = rule.arriving.step
    whole = np.rint(weight.astype(np.float64) / units.reshape(-1, *(1 for _ in weight.shape[1:])))
    listed = may_split and 0 < int(np.count_nonzero(weight)) < LISTED_SHARE * weight.size
    if rule.by is Summation.FLOAT64 or not step or np.abs(whole).max() >= 2.0**31 or (units * step).min() < LEAST:
        write = _list if listed else _table
        table = write(name, weight.transpose(order).reshape(-1, outputs), floats)
        plain = "SUM" if bias is None else f"SUM + (double){name}_bias[OUT]"
        table += "" if bias is None else floats(f"{name}_bias", bias)
        return Terms(name, table, "double", packed=False, step=0.0, total_of=f"(float)({plain})", listed=listed)
    rows = whole.transpose(order).reshape(-1, outputs)
    more = np.floor_divide(rows + 2 ** (SPLIT_BITS - 1), 2**SPLIT_BITS)
    split = may_split and not listed and 0 < int(np.count_nonzero(more)) < SPLIT_SHARE * rows.size
    split = split and float(np.abs(more).max()) < 2**7
    if split:
        rows = rows - more * 2**SPLIT_BITS
    sizes = np.abs(rows) + (np.abs(more) * 2**SPLIT_BITS if split else 0)
    largest = float(sizes.sum(axis=0).max()) * rule.arriving.bound / step
    packed = bool(np.abs(rows).max() < 2**PACKED_BITS) and outputs % 2 == 0 and not listed
    table = (_list if listed else _table)(name, rows, _halves if packed else integers)
    table += _list(f"{name}_more", more, integers) if split else ""
    table += floats(f"{name}_unit", (units * step).astype(np.float32))
    table += "" if bias is None else floats(f"{name}_bias", bias)
    kind = "float" if rule.by is Summation.FLOAT32 and largest <= 2**MANTISSA else "double"
    wide = f"({kind})" if kind == "double" else ""
    total = f"({kind})SUM * {wide}{name}_unit[OUT]" + ("" if bias is None else f" + {wide}{name}_bias[OUT]")
    accumulator = "int32_t" if largest < 2**31 else "int64_t"
    return Terms(name, table, accumulator, packed, step, f"(float)({total})", split, listed)


def _table(name: str, rows: NDArray[Any], write: Writer) -> str:
    return write(f"{name}_weight", rows)


def _list(name: str, rows: NDArray[Any], write: Writer) -> str:
    """Write the weights (rows, outputs) that are not 0, each with its output, and where each row of them begins."""
    row, output = rows.nonzero()
    begins = np.searchsorted(row, np.arange(len(rows) + 1))
    return "".join(
        (
            integers(f"{name}_row", begins),
            integers(f"{name}_output", output),
            write(f"{name}_weight", rows[row, output]),
        )
    )


def _halves(name: str, values: NDArray[Any]) -> str:
    """Write weights of 4 bits, two in each byte, the first in its low half."""
    nibbles = values.ravel().astype(np.int64) & 15
    pairs = nibbles[::2] | (nibbles[1::2] << 4)
    return array(name, "uint8_t", [str(pair) for pair in pairs.tolist()])
