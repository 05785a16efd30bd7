"""The function that runs rows of a layer of neurons: what comes in, what comes back, the step, and who fired.

A row is a step of one sample, see `kernels`. LLVM makes one for each program and each way to add up its sums, so that
a row of a small layer takes no call and leaves the registers for little but its state.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir

from spikeserve.models.engines.event import vectors
from spikeserve.models.engines.event.connections import DOUBLES, FLOATS, INTEGERS, NARROW, PANEL
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.event.native import Native, Record, native
from spikeserve.models.engines.event.steps import Step
from spikeserve.models.engines.event.table import NODE, RUN, SIGNAL
from spikeserve.models.engines.event.vectors import BYTE_PANEL, LANES, Code, add_up, gathering, list_places, write_bytes
from spikeserve.models.spec.program import Program

GATHERED = (FLOATS, INTEGERS, NARROW)  # sums of spikes that a layer of one panel adds up itself
_I64, _I32, _I16, _F32 = ir.IntType(64), ir.IntType(32), ir.IntType(16), ir.FloatType()
_OF_SPIKES = {FLOATS: vectors.FLOATS, INTEGERS: vectors.INTEGERS, DOUBLES: vectors.DOUBLES, NARROW: vectors.BYTES}
_OF_VALUES = _OF_SPIKES | {INTEGERS: vectors.INTEGERS_IN_DOUBLES}


def layer_of(
    program: Program, arrays: frozenset[str], layout: Layout, summed: int | None, fed_back: int | None
) -> Native:
    """Make the function that runs some rows of a sample: it lists who fired at `run.index`, and returns 0.

    (table, number, run, first, end, before, after, bias): the rows from `first` to `end` of the layer of that number in
    the table of nodes. What comes in is `run.current`, where a row lies `run.stride` floats behind the one before. If
    `run.gathers`, it is written there first: what the spikes of the layer's source send through `run.connection`, whose
    sums are added up as `summed` says. What comes back to a layer is added up as `fed_back` says: in the first row of
    the bias from `bias` on and the events `before` to `after`, then of its later bias and the events of the row before.
    Either is None where there is no such sum. What stands between the neurons of a layout never fires. The states lie
    at `run.state`, a row for each. See `kernels.run_neurons` for what it writes.

    A size of one panel is known to the function, so that its sums stay in registers; those of larger layers are not.
    """
    few = layout.size // LANES if layout.size <= PANEL else 0
    key = program, arrays, few, layout.places.size < layout.size, summed, fed_back
    return native(key, [_I64] * 8, partial(_write_layer, *key))


def _write_layer(
    program: Program, arrays: frozenset[str], few: int, padded: bool, summed: int | None, fed_back: int | None,
    builder: Any, arguments: Any,
) -> None:  # fmt: skip
    table, number, run_at, first, end, before, after, bias = arguments
    code, none = Code(None, builder), _I64(0)
    neurons, run = Record(builder, NODE, table, number), Record(builder, RUN, run_at)
    size = _I64(few * LANES) if few else neurons["size"]
    offset, index, stride = run.array("offset", _I64), run.array("index", _I32), run["stride"]
    room, currents, value, trace = (run.array(name, _F32) for name in ("room", "current", "value", "trace"))
    several = builder.gep(room, [size])
    inside = neurons.array("inside", _I16) if padded else None
    step = Step(code, program, arrays, neurons.array("parameters", _F32), size, inside, trace)
    states = step.states(run.array("state", _F32), size)
    if summed is not None:
        source = Record(builder, SIGNAL, run["signals"], neurons["source"])
        arriving = source.array("offset", _I64)
        connection = Record(builder, NODE, table, run["connection"])
        sent = _Sum(code, connection, "", summed, source.array("index", _I32), None)
        gathers = builder.icmp_signed("!=", run["gathers"], none)
    if fed_back is not None:
        returned = _Sum(code, neurons, "recurrent_", fed_back, index, value if program.several else None)

    def load(array: Any, at: Any) -> Any:
        return builder.load(builder.gep(array, [at]))

    def run_row(row: Any, values: list[Any]) -> list[Any]:
        before, after, bias, count = values
        following = builder.add(row, _I64(1))
        current = builder.gep(currents, [builder.mul(builder.sub(row, first), stride)])
        traced = builder.gep(trace, [builder.mul(row, size)])
        if summed is not None:
            with builder.if_then(gathers):
                sums = sent.in_registers(few, none, load(arriving, row), load(arriving, following))
                for vector, total in enumerate(sums):
                    code.store(total, current, none, vector)
        feedback = list[Any]()
        if fed_back is not None and few:
            feedback = returned.in_registers(few, bias, before, after)
        elif fed_back is not None:
            returned.write(room, size, bias, before, after)

        def step_vector(number: Any, counts: list[Any]) -> list[Any]:
            at = builder.mul(number, _I64(LANES))
            known = partial(feedback.__getitem__, number.constant) if feedback else partial(code.load, room, at)
            leaving, bits = step.write(states, at, code.load(current, at), known, traced)
            if bits is None:
                return counts
            if program.several:
                code.store(leaving.value, several, at)
            return [list_places(code, index, counts[0], at, bits)]

        def put_value(k: Any, _: list[Any]) -> list[Any]:
            builder.store(load(several, builder.sext(load(index, k), _I64)), builder.gep(value, [k]))
            return []

        counts = [count]
        for vector in range(len(feedback)):
            counts = step_vector(_I64(vector), counts)
        if not feedback:
            counts = code.loop(none, builder.udiv(size, _I64(LANES)), counts, step_vector)
        if program.several:
            code.loop(count, counts[0], [], put_value)
        builder.store(counts[0], builder.gep(offset, [following]))
        return [count, counts[0], size, counts[0]]

    code.loop(first, end, [before, after, bias, load(offset, first)], run_row)
    builder.ret(none)


class _Sum:
    """The code of a sum: the bias of a record and its weights of events, which have values unless `value` is None.

    The names of the record's fields begin with `prefix`.
    """

    def __init__(self, code: Code, record: Record, prefix: str, summed: int, index: Any, value: Any) -> None:
        self.code, self.record, self.index, self.value = code, record, index, value
        self.summed, self.arithmetic = summed, (_OF_SPIKES if value is None else _OF_VALUES)[summed]
        self.weight, self.bias = (record.array(f"{prefix}{name}", _F32) for name in ("weight", "bias"))
        self.grid, self.end = record.float(f"{prefix}grid"), record[f"{prefix}bias_count"]

    def in_registers(self, few: int, b: Any, k0: Any, k1: Any) -> list[Any]:
        """Write the sum of one panel's weights, from bias[b:] on and the events k0 to k1, and return its floats."""
        code, arithmetic = self.code, self.arithmetic
        totals = add_up(
            code, arithmetic, few, self.bias, b, self.weight, _I64(0), _I64(few * LANES), self.index, self.value, k0, k1
        )
        grid = self._grid(_I64(few * LANES), b)
        return [arithmetic.rounded(code, total, grid, self.bias, b, at) for at, total in enumerate(totals)]

    def _grid(self, size: Any, b: Any) -> Any:
        """Return the grid, as `Arithmetic.rounded` takes it, of a sum whose bias begins at b."""
        if self.summed != NARROW:
            return self.grid
        builder = self.code.builder
        return builder.sub(builder.sub(self.end, size), b)

    def write(self, row: Any, size: Any, b: Any, k0: Any, k1: Any) -> None:
        """Write the code that writes a layer's own sum into a row, panel by panel."""
        code, builder, arithmetic = self.code, self.code.builder, self.arithmetic
        panel = _I64(BYTE_PANEL if self.summed == NARROW else PANEL)

        def write_panel(number: Any, _: list[Any]) -> list[Any]:
            j = builder.mul(number, panel)
            left, start, w = builder.sub(size, j), builder.add(b, j), builder.mul(size, j)
            width = builder.select(builder.icmp_signed("<", left, panel), left, panel)
            sizes = (2, 1) if arithmetic.summed == ir.DoubleType() else (4, 2, 1)
            write = gathering(arithmetic, sizes, valued=self.value is not None)
            if self.summed == NARROW:  # which no neuron that fires several times has
                write = write_bytes
            sums = row, j, self.bias, start, self.weight, w, width, width, self.index, self.value, k0, k1
            write(code, *sums, self._grid(size, b))
            return []

        code.loop(_I64(0), builder.udiv(builder.add(size, builder.sub(panel, _I64(1))), panel), [], write_panel)
