"""Convolutions whose outputs are added up line by line, as LLVM makes them when a network is read; see `lines`.

The lines of outputs that one line of the image reaches lie in a ring, which stays in the first level of the cache. All
events of a position go in one loop, with the sums that they add to in registers. A line of outputs that no later line
reaches is written, or stepped, pooled where a pool follows, and listed; and begins again at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from spikeserve.models.engines.event.native import Native, Record, native
from spikeserve.models.engines.event.steps import Step
from spikeserve.models.engines.event.table import NODE, RUN
from spikeserve.models.engines.event.vectors import LANES, Code, list_places
from spikeserve.models.engines.processor import WIDE
from spikeserve.models.spec.program import Program

REGISTERS = 20 if WIDE else 6  # of LANES floats each: so many sums are held at once
_I8, _I16, _I32, _I64, _F32, _F64 = *map(ir.IntType, (8, 16, 32, 64)), ir.FloatType(), ir.DoubleType()
FLOATS, INTEGERS, SHORTS, DOUBLES = "floats", "integers", "shorts", "doubles"  # as what sums are held
_TYPES = {FLOATS: (_F32, 4), INTEGERS: (_I32, 4), SHORTS: (_I16, 2), DOUBLES: (_F64, 8)}  # with their bytes
HEIGHT, WIDTH, ROWS, COLUMNS, LINE, BEFORE, BY_ROW = range(7)  # places in a table, see `lines.Tables`
PHASE, FIRST, READY = range(3)  # of what it has for a row of the image


@dataclass(frozen=True)
class Lines:
    """A convolution from positions of `channels` places to such of `depth`, with sums that are held as `kind`.

    Groups of `inputs` channels go to `outputs` each, whose weights fill `block` places. An input meets the taps of one
    phase, which has so many `taps` down the kernel, and `across` of them along a line; neighbours among these lie
    `spacing` lines and columns of outputs apart. The ring has so many lines. `pool` is the side of the squares by whose
    maximum the spikes may be pooled, or 1.
    """

    channels: int
    depth: int
    inputs: int
    outputs: int
    block: int
    taps: tuple[int, ...]
    across: int
    spacing: tuple[int, int]
    ring: int
    kind: str
    pool: int = 1

    @property
    def unit(self) -> int:
        """How many weights a channel has in a phase of the columns."""
        return sum(self.taps) * self.across * self.block

    @property
    def runs(self) -> list[tuple[int, int, int]]:
        """The neighbouring sums that a tap down reaches: where they begin in a line and among weights, how many."""
        if self.spacing[1] == 1 and self.block == self.depth:
            return [(0, 0, self.across * self.block)]
        step = self.spacing[1] * self.depth
        return [(column * step, column * self.block, self.block) for column in range(self.across)]


def lines_of(lines: Lines, neurons: tuple[Program, frozenset[str], bool] | None = None) -> Native:
    """Make the function that runs a convolution through some steps of a sample, and returns 0.

    `neurons` are those behind it: their program, the parameters of which each has its own, and whether there is padding
    between them. (table, number, run, first, end, …): the rows from `first` to `end`, by the record of that number, see
    `table.NODE`. The events of a row lie at `run.line_index` as `run.line_offset` says, in ascending order; one more
    may be read. For DOUBLES each counts as often as `run.line_value` says. Sums count as multiples of the grid.

    Without neurons, the sums go to `run.current` and the rows behind it. With neurons it writes what
    `kernels.run_neurons` says; as the spikes of the pool behind them if `run.pooled`, and then it counts the neurons'
    own too. What events cost is counted if `run.line_counts`.
    """
    return native((lines, neurons), [_I64] * 8, _Writer(lines, neurons).write)


class _Writer:
    """Writes the function of `lines_of`."""

    def __init__(self, lines: Lines, neurons: tuple[Program, frozenset[str], bool] | None) -> None:
        self.lines, self.neurons = lines, neurons
        self.kind, self.bytes = _TYPES[lines.kind]
        lanes = (32, 16, 8) if lines.kind == SHORTS else (16, 8)
        self.lanes = next(each for each in lanes if lines.runs[0][2] % each == 0)
        # The vectors of a tap down: where each begins in a line, and among the weights.
        self.parts = [(s + at, w + at) for s, w, count in lines.runs for at in range(0, count, self.lanes)]

    def write(self, builder: Any, arguments: Any) -> None:
        """Write the whole function."""
        table, number, run_at, begin, end, *_ = arguments
        node, run = Record(builder, NODE, table, number), Record(builder, RUN, run_at)
        self.builder, self.code = builder, Code(None, builder)
        self.sums, self.stepped = (self.code.of(ir.VectorType(self.kind, count)) for count in (self.lanes, LANES))
        self.table, self.grid, self.size = node.array("line_table", _I64), node.float("line_grid"), node["size"]
        self.weight = node.array("line_weight", _F32 if self.lines.kind == DOUBLES else self.kind)
        self.base, self.ring = node.array("line_base", self.kind), run.array("room", self.kind)
        self.events, offsets = run.array("line_index", _I32), run.array("line_offset", _I64)
        self.height, self.width, self.rows, self.columns, self.line = (self.entry(_I64(at)) for at in range(5))
        whole = builder.mul(self.line, _I64(self.lines.ring + 1))
        self.masks = builder.bitcast(builder.gep(self.ring, [whole]), _I16.as_pointer())
        self.vectors = builder.udiv(self.times(self.lines.depth, self.columns), _I64(LANES))  # of a line of outputs
        cgutils.memset(builder, run.array("room", _I8), self.times(self.bytes, whole), 0)
        if self.neurons is None:
            currents, self.value = run.array("current", _F32), run.array("line_value", _F32)
            currents = builder.gep(currents, [builder.mul(builder.neg(begin), self.size)])
        else:
            (program, arrays, padded), currents = self.neurons, run.array("trace", _F32)
            self.index, offset, self.pooled = run.array("index", _I32), run.array("offset", _I64), run["pooled"]
            self.cost, inside = node.array("line_cost", _I64), node.array("inside", _I16) if padded else None
            parameters = node.array("parameters", _F32)
            self.step = Step(self.code, program, arrays, parameters, self.size, inside, currents)
            self.states = self.step.states(run.array("state", _F32), self.size)

        def run_step(step: Any, before: list[Any]) -> list[Any]:
            k0, k1 = (builder.load(builder.gep(offsets, [self.times(1, step, more)])) for more in (0, 1))
            to = builder.gep(currents, [builder.mul(step, self.size)])
            after = self.code.loop(_I64(0), self.height, [k0, _I64(0), *before], partial(self.run_line, k1, to))
            if self.neurons:
                builder.store(after[2], builder.gep(offset, [self.times(1, step, 1)]))
            return after[2:]

        listed = builder.load(builder.gep(offset, [begin])) if self.neurons else _I64(0)
        _, fired, cost = self.code.loop(begin, end, [listed, _I64(0), _I64(0)], run_step)
        if self.neurons:
            results = builder.gep(
                run.array("results", _I64), [builder.mul(builder.udiv(begin, run["steps"]), run["width"])]
            )
            for added, place, counts in ((fired, node["column"], self.pooled), (cost, _I64(0), run["line_counts"])):
                total = builder.gep(results, [place])
                added = builder.select(builder.icmp_signed("!=", counts, _I64(0)), added, _I64(0))
                builder.store(builder.add(builder.load(total), added), total)
        builder.ret(_I64(0))

    def times(self, factor: int, value: Any, more: int = 0) -> Any:
        """Write factor * value + more."""
        return self.builder.add(self.builder.mul(value, _I64(factor)), _I64(more))

    def entry(self, place: Any) -> Any:
        """Load a number of the table."""
        return self.builder.load(self.builder.gep(self.table, [place]))

    def joined(self, ends: Sequence[tuple[list[Any], Any]]) -> list[Any]:
        """Write the values that come out of blocks, each of which goes on here."""
        phis = [self.builder.phi(value.type) for value in ends[0][0]]
        for values, block in ends:
            for phi, value in zip(phis, values, strict=True):
                phi.add_incoming(value, block)
        return phis

    def run_line(self, k1: Any, to: Any, y: Any, before: list[Any]) -> list[Any]:
        """Write what a line of the image does: it adds its events, and ends the lines of outputs that it completes.

        `before` has the next event, the first line of outputs that has not ended, how many are listed and have fired,
        and the events' cost; so has what is returned.
        """
        builder = self.builder
        k, done, listed, fired, cost = before
        phase, first, ready = (self.entry(self.times(3, y, BY_ROW + at)) for at in (PHASE, FIRST, READY))
        end = builder.append_basic_block("line.added")
        switch = builder.switch(phase, end)
        ends = [([k, cost], builder.block)]
        for number in range(len(self.lines.taps)):
            block = builder.append_basic_block("phase")
            switch.add_case(_I64(number), block)
            builder.position_at_end(block)
            ends.append((self.add_events(y, first, number, [k, cost], k1), builder.block))
            builder.branch(end)
        builder.position_at_end(end)
        k, cost = self.joined(ends)
        listed, fired = self.code.loop(done, ready, [listed, fired], partial(self.end_line, to))
        return [k, ready, listed, fired, cost]

    def add_events(self, y: Any, top: Any, phase: int, before: list[Any], k1: Any) -> list[Any]:
        """Write the adding of a line's events by the taps of a phase, whose first reaches the line `top` of outputs."""
        builder, lines = self.builder, self.lines
        starts = []
        for tap in range(lines.taps[phase]):
            row = self.times(1, top, tap * lines.spacing[0])
            is_output = builder.icmp_unsigned("<", row, self.rows)
            slot = builder.select(is_output, builder.urem(row, _I64(lines.ring)), _I64(lines.ring))
            starts.append(builder.mul(slot, self.line))
        row_end = builder.trunc(builder.mul(self.times(1, y, 1), self.times(lines.channels, self.width)), _I32)
        by_column, from_line = self.times(3, self.height, BY_ROW), builder.mul(y, self.width)

        entry, loop, done = builder.block, builder.append_basic_block("places"), builder.append_basic_block("line.done")
        builder.cbranch(self.has_event(before[0], k1, row_end), loop, done)
        builder.position_at_end(loop)
        first, cost = phis = [builder.phi(_I64), builder.phi(_I64)]
        for phi, value in zip(phis, before, strict=True):
            phi.add_incoming(value, entry)
        event = builder.zext(builder.load(builder.gep(self.events, [first])), _I64)
        position = builder.udiv(event, _I64(lines.channels))
        here, x = self.times(lines.channels, position), builder.sub(position, from_line)
        at = builder.add(by_column, self.times(2, x))
        weights, column = self.entry(at), self.entry(self.times(1, at, 1))
        weights, end = builder.sub(weights, self.times(lines.unit, here)), self.times(1, here, lines.channels)
        if lines.inputs < lines.channels:
            group = builder.udiv(builder.sub(event, here), _I64(lines.inputs))
            column = builder.add(column, self.times(lines.outputs, group))
            end = builder.add(here, self.times(lines.inputs, group, lines.inputs))
        begins = [builder.gep(self.ring, [builder.add(start, column)]) for start in starts]
        skipped, reach = sum(lines.taps[:phase]), lines.across * lines.block
        parts = [(begin, s, (skipped + tap) * reach + w) for tap, begin in enumerate(begins) for s, w in self.parts]
        most = max(1, REGISTERS * 4 * LANES // (self.bytes * self.lanes))
        at_once, after = -(-len(parts) // -(-len(parts) // most)), first
        for g in range(0, len(parts), at_once):
            group = parts[g : g + at_once]
            totals = [self.sums.load(begin, _I64(s)) for begin, s, _ in group]
            places = [w for _, _, w in group]
            after, totals = self.add_position(first, k1, builder.trunc(end, _I32), weights, places, totals)
            for (begin, s, _), total in zip(group, totals, strict=True):
                self.sums.store(total, begin, _I64(s))
        if self.neurons:
            each = builder.load(builder.gep(self.cost, [position]))
            cost = builder.add(cost, builder.mul(builder.sub(after, first), each))
        for phi, value in zip(phis, [after, cost], strict=True):
            phi.add_incoming(value, builder.block)
        builder.cbranch(self.has_event(after, k1, row_end), loop, done)
        ends = [(before, entry), ([after, cost], builder.block)]
        builder.position_at_end(done)
        return self.joined(ends)

    def has_event(self, k: Any, k1: Any, end: Any) -> Any:
        """Write whether event k is one of the step's before a place, without a branch."""
        event = self.builder.load(self.builder.gep(self.events, [k]))
        return self.builder.and_(self.builder.icmp_signed("<", k, k1), self.builder.icmp_signed("<", event, end))

    def add_position(
        self, k: Any, k1: Any, end: Any, weights: Any, places: list[int], totals: list[Any]
    ) -> tuple[Any, list[Any]]:
        """Write the loop over a position's events, which are at least one; return the next event and the totals."""
        builder, loop, done = self.builder, *map(self.builder.append_basic_block, ("events", "place"))
        entry = builder.block
        builder.branch(loop)
        builder.position_at_end(loop)
        number, sums = builder.phi(_I64), [builder.phi(total.type) for total in totals]
        event = builder.zext(builder.load(builder.gep(self.events, [number])), _I64)
        start = builder.gep(self.weight, [builder.add(weights, self.times(self.lines.unit, event))])
        after = self.plus(sums, start, places, number)
        following = self.times(1, number, 1)
        for phi, before, later in zip([number, *sums], [k, *totals], [following, *after], strict=True):
            phi.add_incoming(before, entry)
            phi.add_incoming(later, builder.block)
        builder.cbranch(self.has_event(following, k1, end), loop, done)
        builder.position_at_end(done)
        return following, after

    def plus(self, sums: list[Any], start: Any, places: list[int], number: Any) -> list[Any]:
        """Write sums plus the weights of an event, which begin at `start`."""
        builder = self.builder
        if self.lines.kind != DOUBLES:
            add = builder.fadd if self.lines.kind == FLOATS else builder.add
            return [add(each, self.sums.load(start, _I64(at))) for each, at in zip(sums, places, strict=True)]
        factor = self.sums.splat(builder.fpext(builder.load(builder.gep(self.value, [number])), _F64))
        floats = self.code.of(ir.VectorType(_F32, self.lanes))
        terms = [builder.fpext(floats.load(start, _I64(at)), sums[0].type) for at in places]
        return [builder.fadd(each, builder.fmul(factor, term)) for each, term in zip(sums, terms, strict=True)]

    def end_line(self, to: Any, row: Any, before: list[Any]) -> list[Any]:
        """Write the end of a line of outputs: as currents, or its neurons' steps and the listing of who fired."""
        builder, lines, code = self.builder, self.lines, self.code
        slot = builder.mul(builder.urem(row, _I64(lines.ring)), self.line)
        first = builder.add(slot, self.entry(_I64(BEFORE)))
        begin, none = builder.mul(builder.mul(row, self.vectors), _I64(LANES)), ir.Constant(self.stepped.vector, None)
        pattern = max(lines.depth, LANES) if lines.depth % LANES != LANES // 2 else 2 * lines.depth

        def end_vector(number: Any, values: list[Any]) -> list[Any]:
            start, listed, fired = values
            at = builder.mul(number, _I64(LANES))
            place, neuron = builder.add(first, at), builder.add(begin, at)
            add = builder.fadd if lines.kind in (FLOATS, DOUBLES) else builder.add
            total = add(self.stepped.load(self.ring, place), self.stepped.load(self.base, start))
            self.stepped.store(none, self.ring, place)
            following = self.times(1, start, LANES)
            start = builder.select(builder.icmp_unsigned("==", following, _I64(pattern)), _I64(0), following)
            if self.neurons is None:
                code.store(self.in_floats(total), to, neuron)
                return [start, listed, fired]
            _, bits = self.step.write(self.states, neuron, self.in_floats(total), lambda: None, to)
            if lines.pool == 1:
                return [start, list_places(code, self.index, listed, neuron, bits), fired]
            builder.store(builder.trunc(bits, _I16), builder.gep(self.masks, [number]))
            return [start, listed, builder.add(fired, builder.ctpop(bits))]

        _, listed, fired = code.loop(_I64(0), self.vectors, [_I64(0), *before], end_vector)
        return [listed if lines.pool == 1 else self.list_line(row, listed), fired]

    def in_floats(self, total: Any) -> Any:
        """Write a vector of sums as floats, rounded once."""
        kind = self.lines.kind
        if kind == FLOATS:
            return total
        if kind == DOUBLES:
            return self.builder.fptrunc(total, self.code.vector)
        return self.code.in_floats(
            self.builder.sext(total, ir.VectorType(_I32, LANES)) if kind == SHORTS else total, self.grid
        )

    def list_line(self, row: Any, listed: Any) -> Any:
        """Write the listing of a line's masks: those of a pool's lines in one, once its last is there, if `pooled`."""
        builder, pool, code, per = self.builder, self.lines.pool, self.code, self.lines.depth // LANES
        is_pooled = builder.icmp_signed("!=", self.pooled, _I64(0))
        side = builder.select(is_pooled, _I64(pool), _I64(1))
        columns = builder.udiv(self.columns, side)
        which, of_pool = builder.udiv(row, side), builder.urem(row, side)
        above = builder.gep(self.masks, [self.vectors])  # what the pool's lines before gave
        is_first = builder.icmp_signed("==", of_pool, _I64(0))
        is_last = builder.icmp_signed("==", self.times(1, of_pool, 1), side)
        to = builder.mul(builder.mul(which, columns), _I64(self.lines.depth))

        def pool_vector(number: Any, count: list[Any]) -> list[Any]:
            x, v = builder.udiv(number, _I64(per)), builder.urem(number, _I64(per))
            at = builder.add(builder.mul(x, self.times(per, side)), v)
            mask = builder.select(is_first, _I16(0), builder.load(builder.gep(above, [number])))
            for k in range(pool):
                other = builder.load(builder.gep(self.masks, [self.times(1, at, per * k)]))
                mask = builder.or_(mask, builder.select(is_pooled, other, _I16(0)) if k else other)
            builder.store(mask, builder.gep(above, [number]))
            bits = builder.select(is_last, builder.zext(mask, _I64), _I64(0))
            return [list_places(code, self.index, count[0], builder.add(to, self.times(LANES, number)), bits)]

        return code.loop(_I64(0), self.times(per, columns), [listed], pool_vector)[0]
