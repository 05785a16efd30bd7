"""The tables that a run's native functions read: one record for each node, each signal between nodes, and the run.

An array is the address of its first element and its length. Whoever makes a record keeps its arrays alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.spec.network import FloatArray


class Events(NamedTuple):
    """What is not zero: `index` (events,), `value` (events,) or empty for ones, `offset` (rows + 1,)."""

    index: NDArray[np.int32]  # type: ignore[assignment]  # a tuple's own method of that name is not used
    value: FloatArray
    offset: NDArray[np.int64]


def _record(numbers: str, arrays: str = "", floats: str = "") -> np.dtype[Any]:
    addressed = [name for array in arrays.split() for name in (array, f"{array}_count")]
    return np.dtype([(name, np.int64) for name in numbers.split() + addressed] + [(f, "f8") for f in floats.split()])


# What a node is to its function in `node_kernels`: where its input comes from and its output goes to among the signals,
# and the fields of `connections.Feed` and of the classes of `planned`.
NODE = _record(
    "function runner source target size constant kind channels step output_step weight_step channel_step halves summed "
    "code states recurrent_summed carried_at spiking several traced fan_back row read units area_channels overlaps "
    "largest dense",
    "weight sender first_block blocks reach bias cost parameters rest inside recurrent_weight recurrent_bias elements "
    "places outputs first_input inputs scale moves",
    "busy fan_out grid most recurrent_grid divisor area",
)
# A signal has `steps` rows for each sample, 1 where every step is the same, as events, as rows of `size`, or both.
# Where `feed` is the row of a connection in the table of nodes, the events are that connection's inputs. 0 stands for
# an array that is not there. `trace` are the membranes of the layer that made it.
SIGNAL = _record("steps size feed trace rows index value offset")
# What the nodes of one run share. `arena` (bytes) holds what they find, up to `used`. `results` are the operations of
# each sample and then the spikes of each layer and sample, and `counts` those of each neuron that is read; `carried`
# says where each sample's state lies. What a layer of neurons takes and gives comes next, from `connection` on; a
# thread that runs a part of a node, from `lo` to `hi`, has a copy. `needed`, `work` and `largest` say why a node did
# not run: for want of so many bytes, since other threads should share so many microseconds of work, of which a part is
# a multiple of `unit`, unless it is to run `alone`; or since a neuron fired more often than can be counted.
RUN = _record(
    "signals samples steps begun carried values sample_stride step_stride results counts arena arena_count used room "
    "room_count keeps_traces known slot connection base base_steps kind lo hi index value offset trace needed alone "
    "unit",
    floats="enough work largest",
)
# Why the loop over the nodes came back before its end: the first number that is not 0, of the node that it stands at.
ENDED = -1
NEEDS_NOTHING, NEEDS_ROWS, NEEDS_EVENTS, NEEDS_ROOM = range(4)
SHARES, FIRES_TOO_OFTEN, IS_PYTHON, FAILED = range(4, 8)
REASONS = 8


def put(record: Any, **values: Any) -> None:
    """Write numbers and arrays into a record; the caller holds the arrays for as long as the record is used."""
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            record[name], record[f"{name}_count"] = value.ctypes.data if value.size else 0, len(value)
        else:
            record[name] = value


def put_fields(record: Any, fields: Any, but: Sequence[str] = ()) -> None:
    """Write the fields of a named tuple into a record."""
    put(record, **{name: value for name, value in fields._asdict().items() if name not in but})
