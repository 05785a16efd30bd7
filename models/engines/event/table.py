"""The tables that a run's native functions read: one record for each node, each signal between nodes, and the run.

A record holds an array as the address of its first element and its length. Code that writes a record must keep the
array alive as long as the record is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec.network import FloatArray

Ints = NDArray[np.int32]


class Events(NamedTuple):
    """What is not zero: `index` (events,), `value` (events,) or empty for ones, `offset` (rows + 1,)."""

    index: Ints  # type: ignore[assignment]  # a tuple's own method of that name is not used
    value: FloatArray
    offset: NDArray[np.int64]


class Feed(NamedTuple):
    """A weighted connection for the kernels.

    `summed`: how its sums are added up. INTEGERS: weight and bias hold integers, in the bits of the arrays, which count
    as multiples of `grid`; they have room for values up to `most`. NARROW: they are what `connections.byte_tables`
    says. DOUBLES: where all values are multiples of 1 / `fine`, float32 holds their sums; 0 if it holds none.

    GATHER: `weight` holds panels, each of the weights to PANEL outputs or to those that are left, of all `fan_in`
    units, one after the other. Where a larger share of the inputs than BUSY spikes, all weights are read.

    PASS: no connection; an event is the current at its own place, and there is no bias.

    LINES: a convolution, which has fields of its own, see `lines`.

    SPARSE: an event at a place adds its weights, first_weight[place] to first_weight[place + 1], each to the output
    that `receivers` names, in ascending order; a row has `channels` outputs.

    `fan_out` is how many outputs an event adds to, on average and with the padding.
    """

    kind: int
    weight: FloatArray
    first_weight: Ints
    receivers: Ints
    channels: int
    fan_out: float
    summed: int
    grid: float
    most: float
    fine: float
    fan_in: int


class Windows(NamedTuple):
    """A pool both ways.

    `outputs` (size * overlaps,) holds the places that each place counts for, -1 behind the last; `inputs` from
    first_input[q] to first_input[q + 1] are the positions under window q, of `channels` places each, as many of which
    count as its own `depth`. `divisors` are what a sum is divided by at each place, or at all (1,).
    """

    overlaps: int
    outputs: Ints
    channels: int
    depth: int
    first_input: Ints
    inputs: Ints
    divisors: FloatArray


def _record(numbers: str, arrays: str = "", floats: str = "", tuples: Sequence[type] = ()) -> np.dtype[Any]:
    """Make a record of whole numbers, arrays and floats, and of the fields of named tuples, by their types."""
    kinds: dict[str, Any] = dict.fromkeys(numbers.split(), int) | dict.fromkeys(arrays.split(), np.ndarray)
    kinds |= dict.fromkeys(floats.split(), float)
    for each in tuples:
        kinds |= get_type_hints(each)
    fields: list[tuple[str, Any]] = []
    for name, kind in kinds.items():
        fields.append((name, np.float64 if kind is float else np.int64))
        if kind not in (int, float):
            fields.append((f"{name}_count", np.int64))
    return np.dtype(fields)


# What a node is to its function in `node_kernels`. `name` has its function's address, `source` and `target` the signals
# that it takes and gives, and `others` all that it takes if they are several. `size` is how long a row of the target
# is, with `units` elements at `places`. It `sorts` its events by their places where a convolution wants them so.
#
# A connection has the fields of its `Feed`, its `bias` (size,), behind which powers of two may stand, and an
# event's `cost` at each place, or at all (1,). A pool has those of its `Windows` and its `divisors` (1,) or
# (size,); if it takes the `largest`; and if values other than 1 go `dense`: for a maximum, where 0 counts too, and a
# sum that float32 cannot hold.
#
# A layer of neurons has the address `code` of its rows' function, see `layers.layer_of`, which `gathers` what some
# connection sends, and `runner`, that of `run_neurons`.
# `parameters` has those of one number, padded to whole vectors, and then a row of `size` for each of the others, by
# name. It has so many `states`, which at rest are the rows `rest`. `inside` has the bits of each vector that are no
# padding. `recurrent_weight` has panels of a row for each sender, and `recurrent_bias` (2 * size) its bias at the first
# step and at later ones, behind which powers of two may stand; `recurrent_summed` and `recurrent_grid` are as in a
# Feed, and a spike that comes back costs `fan_back`, which is 0 in other layers. It is `spiking`, or fires `several`
# times a step; its membranes are `traced`. The number of its spikes goes to the column `column` of the results, and
# each neuron's to the counts if it is `read`.
#
# A convolution, and a layer that may run with the one before it, have the address `line_code` of a function, see
# `lines_code`, and what it reads. The events of the layer's may have values up to `line_most`. It may be `line_pooled`,
# with the pool behind it. It counts the operations of a convolution that has it as its only reader, `line_only`.
#
# A sample's state lies `carried_at` in its row, see `carried`: that of a layer, or the `longest` last rows of a delay.
NODE = _record(
    "function runner source target size units constant code states recurrent_summed carried_at spiking "
    "several gathers traced fan_back column read largest dense longest operation heads rows inner columns by_step "
    "of_trace line_code line_pooled line_only sorts",
    "others bias cost parameters rest inside recurrent_weight recurrent_bias elements places scale shift moves delay "
    "divisors line_table line_weight line_base line_cost",
    "recurrent_grid line_grid line_most",
    (Feed, Windows),
)
# A signal has `steps` rows for each sample, 1 where every step is the same, as events, as rows of `size`, or both.
# Where `feed` is the row of a connection in the table of nodes, the events are that connection's inputs; where it is
# POOLED, those of the pool that reads the signal. 0 stands for an array that is not there. `trace` are the membranes of
# the layer that made it.
SIGNAL = _record("steps size feed trace rows index value offset")
# What the nodes of one run share. It runs the samples from `first` to `end`, so many at once as its `group` has, up to
# each of the `looks` (steps), of `given_steps` in all; `look`, `done` and `row` say where it is. At a look a sample may
# end by the rule `ends`, see `base.Ending`. The arrays have a row for each sample: `given_begun` how many steps it took
# before, `given_results` its operations and then the spikes of each layer (`width`), `given_counts` how often each of
# the neurons (`classes`) that are read fired, `given_reads` what was read of them, `given_readout` what that is as an
# answer, and `taken` how many steps it took. Where samples end early, the arrays have two rows for each: the first
# `batch` are of the samples as they run, the others of those that have ended. A sample's state (`floats`) lies at the
# address in `given_states`; if there are none, in its row from `given_carried` on, which is that of its group where
# samples end early. In a `group` of 1 a sample may have the state of the one before it, and goes on from there. What is
# called so without `given_` begins with the group's first sample. `samples` and `steps` are those of the group and up
# to the next look.
#
# `arena` (bytes) holds what the nodes find, up to `used`. What a layer of neurons takes and gives comes next, from
# `connection` on. `needed` and `largest` say why a node did not run: for want of so many bytes, or since a neuron fired
# more often than can be counted.
RUN = _record(
    "signals first end group looks looks_count look done row ends stop samples steps given_steps given_begun "
    "given_results width given_counts classes given_reads given_readout given_carried given_states floats taken batch "
    "begun results counts reads readout carried states given_values values given_offset given_index sample_stride "
    "step_stride arena arena_count used room keeps_traces keeps_spikes slot connection base base_steps kind gathers "
    "current stride state index value offset trace needed pooled line_index line_offset line_value line_counts",
    floats="largest worth",
)
# Why a run came back to Python: it ended, or the first number that is not 0 of the node that it stands at.
ENDED, POOLED = -1, -2
NEEDS_NOTHING, NEEDS_ROWS, NEEDS_EVENTS, NEEDS_ROOM, FIRES_TOO_OFTEN, STOPPED, FAILED = range(7)
# What a node makes of several inputs, and what is read of the last one.
ADD, MULTIPLY, CONCATENATE, MATMUL = range(4)
COUNT, FIRST, SUM, MEAN, GREATEST, LAST = range(6)


def put(arrays: list[NDArray[Any]], record: Any, **values: Any) -> None:
    """Write numbers and arrays into a record, and hold the arrays."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            arrays.append(value)
            record[name], record[f"{name}_count"] = value.ctypes.data if value.size else 0, len(value)
        else:
            record[name] = value
