"""Convolutions whose outputs are added up, stepped and listed line by line, as LLVM makes them when a network is read.

The lines of outputs that one line of the image reaches lie in a ring, which stays in the first level of the cache. All
events of a position go in one loop, with the sums that they add to in registers. A line of outputs that no later line
reaches is stepped, pooled where a pool follows, and listed, and begins again as the bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from spikeserve.models.engines.event.native import Native, native
from spikeserve.models.engines.event.steps import Step
from spikeserve.models.engines.event.vectors import LANES, Code, list_places
from spikeserve.models.engines.processor import WIDE
from spikeserve.models.spec.program import Program

REGISTERS = 20 if WIDE else 6  # vectors of LANES floats whose sums are held at once
_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS, _PLACES, _OFFSETS, _MASKS = (kind.as_pointer() for kind in (_F32, _I32, _I64, _I16))
FLOATS, INTEGERS, SHORTS = "floats", "integers", "shorts"  # as what sums are held
_TYPES = {FLOATS: _F32, INTEGERS: _I32, SHORTS: _I16}


@dataclass(frozen=True)
class Lines:
    """A convolution from positions of `channels` places to such of `depth`, with sums that are held as `kind`.

    A kernel of `extent` moves by `stride` over an image with so much padding `before` it (each down, across). `pool` is
    the side of the squares by whose maximum the spikes may be pooled, or 1.
    """

    channels: int
    depth: int
    extent: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    kind: str
    pool: int

    @property
    def across(self) -> int:
        """How many neighbouring columns of outputs an input reaches at most."""
        return -(-self.extent[1] // self.stride[1])

    @property
    def down(self) -> int:
        """How many lines of outputs an input reaches at most: the ring has one more, for those that are none."""
        return -(-self.extent[0] // self.stride[0])

    @property
    def reach(self) -> int:
        """How many neighbouring weights one tap down has."""
        return self.across * self.depth

    @property
    def unit(self) -> int:
        """How many weights a channel has."""
        return self.extent[0] * self.reach

    def line(self, width: int, columns: int) -> int:
        """Return how many sums a line of the ring has, those beside the outputs included."""
        last = (width - 1 + self.before[1]) // self.stride[1]
        return max(self.across + last, self.across - 1 + columns) * self.depth

    def room(self, width: int, columns: int) -> int:
        """Return how many floats the ring and the masks of a line take at most."""
        return (self.down + 1) * self.line(width, columns) + columns * self.depth // LANES + 2 * LANES


def lines_of(lines: Lines, program: Program, arrays: frozenset[str], *, padded: bool) -> Native:
    """Make the function that runs a convolution and its neurons through the steps of one sample.

    (steps, sizes, events, offsets, weight, base, grid, states, size, parameters, inside, index, offset, listed, trace,
    room, pooled, fired, cost, operations): `sizes` are the height and width of the image, and the rows and columns of
    the outputs. The events of step t are events[offsets[t]:offsets[t + 1]], ascending; one more may be read. The
    weights are those of `lines.arranged`, and `base` the channels' bias, repeated to whole vectors. The neurons'
    arguments are as in `steps`. Spikes go to index[listed:], and the number of all up to step t to offset[t + 1]; as
    those of the pool if they are `pooled`, with the number of the neurons' own added to `fired`. What the events cost,
    each as its position in `cost` says, is added to `operations` unless that is null. Returns how many are listed.
    """
    arguments = [_I64, _OFFSETS, _PLACES, _OFFSETS, _FLOATS, _FLOATS, _F32, _FLOATS, _I64, _FLOATS, _MASKS]
    key, build = (lines, program, arrays, padded), _Writer(lines, program, arrays, padded).write
    return native(key, [*arguments, _PLACES, _OFFSETS, _I64, _FLOATS, _FLOATS, _I64, *[_OFFSETS] * 3], build)


class _Writer:
    """Writes the function of `lines_of`."""

    def __init__(self, lines: Lines, program: Program, arrays: frozenset[str], padded: bool) -> None:
        self.lines, self.program, self.arrays, self.padded = lines, program, arrays, padded

    def write(self, builder: Any, arguments: Any) -> None:
        """Write the whole function."""
        lines, program, arrays = self.lines, self.program, self.arrays
        (
            steps, sizes, self.events, self.offsets, weight, base, self.grid, states, self.size, parameters, inside,
            self.index, offset, listed, self.trace, room, self.pooled, fired, self.cost, operations,
        ) = arguments  # fmt: skip
        self.builder, self.code = builder, Code(None, builder)
        self.height, self.width, self.rows, self.columns = (
            builder.load(builder.gep(sizes, [_I64(place)])) for place in range(4)
        )
        kind = _TYPES[lines.kind]
        lanes = next(lanes for lanes in (2 * LANES, LANES, LANES // 2) if lines.reach % lanes == 0)
        lanes = lanes if lines.kind == SHORTS else min(lanes, LANES)
        self.sums = self.code.of(ir.VectorType(kind, lanes))
        self.stepped = self.code.of(ir.VectorType(kind, LANES))
        self.weight, self.base, self.ring = (builder.bitcast(each, kind.as_pointer()) for each in (weight, base, room))
        self.step = Step(self.code, program, arrays, parameters, self.size, inside if self.padded else None, self.trace)
        self.states = self.step.states(states, self.size)
        last = builder.udiv(self.times(1, self.width, lines.before[1] - 1), _I64(lines.stride[1]))
        wide = self.most(self.times(1, last, lines.across), self.times(1, self.columns, lines.across - 1))
        self.line = self.times(lines.depth, wide)
        whole = builder.mul(self.line, _I64(lines.down + 1))
        self.masks = builder.bitcast(builder.gep(self.ring, [whole]), _MASKS)
        self.vectors = builder.udiv(self.times(lines.depth, self.columns), _I64(LANES))  # of a line
        self.clear()

        def run_step(step: Any, before: list[Any]) -> list[Any]:
            k0, k1 = (builder.load(builder.gep(self.offsets, [self.times(1, step, more)])) for more in (0, 1))
            trace = builder.gep(self.trace, [builder.mul(step, self.size)])
            after = self.code.loop(_I64(0), self.height, [k0, _I64(0), *before], partial(self.run_line, k1, trace))
            builder.store(after[2], builder.gep(offset, [self.times(1, step, 1)]))
            return after[2:]

        listed, total, cost = self.code.loop(_I64(0), steps, [listed, _I64(0), _I64(0)], run_step)
        with builder.if_then(builder.icmp_unsigned("!=", operations, ir.Constant(_OFFSETS, None))):
            builder.store(builder.add(builder.load(operations), cost), operations)
        total = builder.select(builder.icmp_signed("!=", self.pooled, _I64(0)), total, _I64(0))
        builder.store(builder.add(builder.load(fired), total), fired)
        builder.ret(listed)

    def times(self, factor: int, value: Any, more: int = 0) -> Any:
        """Write factor * value + more."""
        return self.builder.add(self.builder.mul(value, _I64(factor)), _I64(more))

    def most(self, first: Any, other: Any, less: bool = False) -> Any:
        """Write the larger of two numbers, or the lesser."""
        return self.builder.select(self.builder.icmp_signed("<" if less else ">", first, other), first, other)

    def clear(self) -> None:
        """Write zeros to the ring, and the bias to its lines."""
        builder, lines = self.builder, self.lines
        whole = builder.mul(self.line, _I64(lines.down + 1))
        size = _I64(2 if lines.kind == SHORTS else 4)
        start = builder.bitcast(self.ring, ir.IntType(8).as_pointer())
        cgutils.memset(builder, start, builder.mul(whole, size), 0)
        for slot in range(lines.down):
            first = self.times(1, builder.mul(self.line, _I64(slot)), (lines.across - 1) * lines.depth)
            self.each_vector(lambda at, start, first=first: self.restart(builder.add(first, at), start))

    def each_vector(self, body: Callable[..., Any], before: Sequence[Any] = ()) -> list[Any]:
        """Write `body(at, place in the base, *before)` for each vector of a line; what it returns comes next."""
        pattern, builder = math.lcm(self.lines.depth, LANES), self.builder

        def one(number: Any, values: list[Any]) -> list[Any]:
            start, *others = values
            after = body(builder.mul(number, _I64(LANES)), start, *others) or []
            following = self.times(1, start, LANES)
            again = builder.icmp_unsigned("==", following, _I64(pattern))
            return [builder.select(again, _I64(0), following), *after]

        return self.code.loop(_I64(0), self.vectors, [_I64(0), *before], one)[1:]

    def restart(self, place: Any, start: Any) -> None:
        """Write a vector of the base to the ring."""
        self.stepped.store(self.stepped.load(self.base, start), self.ring, place)

    def run_line(self, k1: Any, trace: Any, y: Any, before: list[Any]) -> list[Any]:
        """Write what a line of the image does: it adds its events, and ends the lines of outputs that it completes."""
        builder, lines = self.builder, self.lines
        k, done, listed, fired, cost = before
        k, cost = self.by_phase(y, [k, cost], k1)
        ready = builder.sdiv(
            self.times(1, y, lines.before[0] - lines.extent[0] + 1 + lines.stride[0]), _I64(lines.stride[0])
        )
        is_last = builder.icmp_signed("==", self.times(1, y, 1), self.height)
        limit = builder.select(is_last, self.rows, self.most(ready, self.rows, less=True))
        listed, fired = self.code.loop(done, limit, [listed, fired], partial(self.end_line, trace))
        return [k, self.most(done, limit), listed, fired, cost]

    def by_phase(self, y: Any, before: list[Any], k1: Any) -> list[Any]:
        """Write the adding of a line's events, by which taps of the kernel meet it."""
        builder, stride = self.builder, self.lines.stride[0]
        shifted = self.times(1, y, self.lines.before[0])
        if stride == 1:
            return self.add_events(y, shifted, 0, before, k1)
        end = builder.append_basic_block("line.added")
        switch = builder.switch(builder.urem(shifted, _I64(stride)), end)
        ends = [(before, builder.block)]
        for phase in range(stride):
            block = builder.append_basic_block("phase")
            switch.add_case(_I64(phase), block)
            builder.position_at_end(block)
            ends.append((self.add_events(y, shifted, phase, before, k1), builder.block))
            builder.branch(end)
        builder.position_at_end(end)
        return self.joined(ends)

    def joined(self, ends: Sequence[tuple[list[Any], Any]]) -> list[Any]:
        """Write the values that come out of blocks, each of which goes on here."""
        phis = [self.builder.phi(value.type) for value in ends[0][0]]
        for values, block in ends:
            for phi, value in zip(phis, values, strict=True):
                phi.add_incoming(value, block)
        return phis

    def add_events(self, y: Any, shifted: Any, phase: int, before: list[Any], k1: Any) -> list[Any]:
        """Write the adding of a line's events by each tap from `phase` on that meets it.

        `before` has the number of the next event, and what all events before that cost; so has what is returned.
        """
        builder, lines = self.builder, self.lines
        top = builder.udiv(builder.sub(shifted, _I64(phase)), _I64(lines.stride[0]))
        starts, taps = [], range(phase, lines.extent[0], lines.stride[0])
        for i in range(len(taps)):
            row = self.times(1, top, -i)
            slot = builder.urem(row, _I64(lines.down))
            inside = builder.icmp_unsigned("<", row, self.rows)
            starts.append(builder.mul(builder.select(inside, slot, _I64(lines.down)), self.line))
        vectors = lines.reach // self.sums.vector.count
        parts = [(i, v) for i in range(len(taps)) for v in range(vectors)]
        groups = -(-len(parts) // max(1, REGISTERS))
        at_once = -(-len(parts) // groups)
        row_end = builder.trunc(builder.mul(self.times(1, y, 1), self.times(lines.channels, self.width)), _I32)
        from_line = builder.mul(y, self.width)

        entry, loop, done = builder.block, builder.append_basic_block("places"), builder.append_basic_block("line.done")
        builder.cbranch(self.has_event(before[0], k1, row_end), loop, done)
        builder.position_at_end(loop)
        first, cost = phis = [builder.phi(_I64), builder.phi(_I64)]
        for phi, value in zip(phis, before, strict=True):
            phi.add_incoming(value, entry)
        event = builder.zext(builder.load(builder.gep(self.events, [first])), _I64)
        position = builder.udiv(event, _I64(lines.channels))
        here = self.times(lines.channels, position)
        end = builder.trunc(self.times(1, here, lines.channels), _I32)
        x = self.times(1, builder.sub(position, from_line), lines.before[1])
        column = self.times(lines.depth, builder.udiv(x, _I64(lines.stride[1])))
        shift = builder.mul(builder.urem(x, _I64(lines.stride[1])), _I64(lines.channels))
        weights = builder.mul(builder.sub(shift, here), _I64(lines.unit))
        begins = [builder.gep(self.ring, [builder.add(start, column)]) for start in starts]
        after = first
        for g in range(0, len(parts), at_once):
            group = parts[g : g + at_once]
            places = [(begins[i], _I64(v * self.sums.vector.count)) for i, v in group]
            offsets = [taps[i] * lines.reach + v * self.sums.vector.count for i, v in group]
            totals = [self.sums.load(*place) for place in places]
            after, totals = self.add_position(first, k1, end, weights, offsets, totals)
            for place, total in zip(places, totals, strict=True):
                self.sums.store(total, *place)
        each = builder.load(builder.gep(self.cost, [position]))
        behind = [after, builder.add(cost, builder.mul(builder.sub(after, first), each))]
        for phi, value in zip(phis, behind, strict=True):
            phi.add_incoming(value, builder.block)
        builder.cbranch(self.has_event(after, k1, row_end), loop, done)
        ends = [(before, entry), (behind, builder.block)]
        builder.position_at_end(done)
        return self.joined(ends)

    def has_event(self, k: Any, k1: Any, end: Any) -> Any:
        """Write whether event k is one of the step's before a place, without a branch."""
        builder = self.builder
        event = builder.load(builder.gep(self.events, [k]))
        return builder.and_(builder.icmp_signed("<", k, k1), builder.icmp_signed("<", event, end))

    def add_position(
        self, k: Any, k1: Any, end: Any, weights: Any, offsets: list[int], totals: list[Any]
    ) -> tuple[Any, list[Any]]:
        """Write the loop over a position's events, which are at least one; return the next event and the totals."""
        builder = self.builder
        entry, loop, done = builder.block, builder.append_basic_block("events"), builder.append_basic_block("place")
        builder.branch(loop)
        builder.position_at_end(loop)
        number, sums = builder.phi(_I64), [builder.phi(total.type) for total in totals]
        event = builder.zext(builder.load(builder.gep(self.events, [number])), _I64)
        row = builder.add(weights, builder.mul(event, _I64(self.lines.unit)))
        start = builder.gep(self.weight, [row])
        add = builder.fadd if self.lines.kind == FLOATS else builder.add
        after = [add(total, self.sums.load(start, _I64(at))) for total, at in zip(sums, offsets, strict=True)]
        following = self.times(1, number, 1)
        builder.cbranch(self.has_event(following, k1, end), loop, done)
        for phi, first, later in zip([number, *sums], [k, *totals], [following, *after], strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(later, builder.block)
        builder.position_at_end(done)
        return following, after

    def end_line(self, trace: Any, row: Any, before: list[Any]) -> list[Any]:
        """Write the steps of a line of neurons, and the listing of those that fired."""
        builder, lines, code = self.builder, self.lines, self.code
        slot = builder.mul(builder.urem(row, _I64(lines.down)), self.line)
        first = self.times(1, slot, (lines.across - 1) * lines.depth)
        begin = builder.mul(builder.mul(row, self.vectors), _I64(LANES))

        def step(at: Any, start: Any, listed: Any, fired: Any) -> list[Any]:
            place, neuron = builder.add(first, at), builder.add(begin, at)
            total = self.stepped.load(self.ring, place)
            self.restart(place, start)
            _, bits = self.step.write(self.states, neuron, self.in_floats(total), lambda: None, trace)
            if lines.pool == 1:
                return [list_places(code, self.index, listed, neuron, bits), fired]
            number = builder.udiv(at, _I64(LANES))
            builder.store(builder.trunc(bits, _I16), builder.gep(self.masks, [number]))
            return [listed, builder.add(fired, builder.ctpop(bits))]

        listed, fired = self.each_vector(step, before)
        return [listed if lines.pool == 1 else self.list_line(row, begin, listed), fired]

    def in_floats(self, total: Any) -> Any:
        """Write a vector of sums as floats."""
        if self.lines.kind == FLOATS:
            return total
        wide = ir.VectorType(_I32, LANES)
        total = self.builder.sext(total, wide) if self.lines.kind == SHORTS else total
        return self.code.in_floats(total, self.grid)

    def list_line(self, row: Any, begin: Any, listed: Any) -> Any:
        """Write the listing of a line's masks: pooled, once a pool's last line is there, or as they are."""
        builder, pool, code = self.builder, self.lines.pool, self.code
        ends = list[tuple[list[Any], Any]]()
        end, pooled, plain = (builder.append_basic_block(name) for name in ("listed", "pooled", "plain"))
        builder.cbranch(builder.icmp_signed("!=", self.pooled, _I64(0)), pooled, plain)

        builder.position_at_end(plain)

        def list_vector(number: Any, count: list[Any]) -> list[Any]:
            bits = builder.zext(builder.load(builder.gep(self.masks, [number])), _I64)
            return [list_places(code, self.index, count[0], builder.add(begin, self.times(LANES, number)), bits)]

        (after,) = code.loop(_I64(0), self.vectors, [listed], list_vector)
        ends.append(([after], builder.block))
        builder.branch(end)

        builder.position_at_end(pooled)
        per = self.lines.depth // LANES  # vectors of a position
        columns = builder.udiv(self.columns, _I64(pool))
        pools = builder.udiv(self.rows, _I64(pool))
        above = builder.gep(self.masks, [self.vectors])  # what the lines before gave
        which, of_pool = builder.udiv(row, _I64(pool)), builder.urem(row, _I64(pool))
        is_first = builder.icmp_signed("==", of_pool, _I64(0))
        is_last = builder.icmp_signed("==", of_pool, _I64(pool - 1))
        to = builder.mul(builder.mul(which, columns), _I64(self.lines.depth))
        count = builder.select(builder.icmp_signed("<", which, pools), self.times(per, columns), _I64(0))

        def pool_vector(number: Any, count: list[Any]) -> list[Any]:
            x, v = builder.udiv(number, _I64(per)), builder.urem(number, _I64(per))
            at = builder.add(self.times(pool * per, x), v)
            masks = [builder.load(builder.gep(self.masks, [self.times(1, at, per * k)])) for k in range(pool)]
            before = builder.select(is_first, _I16(0), builder.load(builder.gep(above, [number])))
            for mask in masks:
                before = builder.or_(before, mask)
            builder.store(before, builder.gep(above, [number]))
            bits = builder.select(is_last, builder.zext(before, _I64), _I64(0))
            return [list_places(code, self.index, count[0], builder.add(to, self.times(LANES, number)), bits)]

        (after,) = code.loop(_I64(0), count, [listed], pool_vector)
        ends.append(([after], builder.block))
        builder.branch(end)

        builder.position_at_end(end)
        return self.joined(ends)[0]
