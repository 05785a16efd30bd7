"""A state as the kernels hold it: read from a `State` before a run goes on, and offered as one after it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.inputs import Samples
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.readout import Counts
from spikeserve.models.engines.state import READ, READOUT, SPIKE_COUNTS, EngineArrays, State, StateArray, arrays_of
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import FloatArray, Network

LINE = ".line"


@dataclass(frozen=True)
class CarriedLayout:
    """Where the arrays of a network's state lie in a sample's row of `floats`, in the order of `arrays_of`.

    `arrays` has the layout of each, how many rows of it there are, the longest delay of a Delay and 1 for others, and
    where the first begins; `begins` where a node's arrays do. `read` are the types of the readout's arrays, which are
    held apart. The spikes so far are `counted` as what is read if that is a spike count.
    """

    arrays: dict[str, tuple[Layout, int, int]]
    floats: int
    begins: dict[str, int]
    read: dict[str, StateArray]
    counted: str

    @classmethod
    def of(cls, network: Network, layouts: Mapping[str, Layout]) -> CarriedLayout:
        """Return the layout of a network's state."""
        arrays, begins, floats, carried = dict[str, tuple[Layout, int, int]](), dict[str, int](), 0, arrays_of(network)
        for name, array in carried.items():
            node = name.rpartition(".")[0]
            if name not in READ:
                layout = layouts[network.spec.sources[node][0]]  # of what arrives, which is what a line holds
                rows = math.prod(array.shape) // max(1, math.prod(layout.shape))
                arrays[name] = layout, rows, floats
                begins.setdefault(node, floats)
                floats += rows * layout.size
        read = {name: array for name, array in carried.items() if name in READ}
        counted = READOUT if network.spec.readout is Readout.SPIKE_COUNT else SPIKE_COUNTS
        return cls(arrays, floats, begins, read, counted)


class CarriedArrays(EngineArrays):
    """The arrays of a `State`, each converted whenever it is looked up, since most runs end without a look.

    It holds the state and no other part of the run: no events, inputs or weights. That is, for each sample, 4 bytes
    for each state of each neuron and, in a recurrent layer, its last spike, and for each element of a Delay's input and
    each step of its longest delay, with the layout's padding: in `parts`, each (samples, floats). Those of several runs
    stay parts of their own, so that the states of many sessions run as one batch and are not moved. The spikes so far
    are `counts` (batch, classes), and what is read of other outputs `reads` (batch, classes) float64. `rows` are the
    addresses of the samples' rows, once they were looked up.
    """

    __slots__ = ("counts", "layout", "parts", "reads", "rows")

    def __init__(
        self, layout: CarriedLayout, parts: Sequence[FloatArray], counts: Counts, reads: Any, rows: Any = None
    ) -> None:
        self.layout, self.parts, self.counts, self.reads, self.rows = layout, parts, counts, reads, rows

    @classmethod
    def of(cls, layout: CarriedLayout, state: State) -> CarriedArrays:
        """Return the arrays of a state that fits, in arrays of their own."""
        before, batch = state.arrays, len(state.steps)
        if isinstance(before, CarriedArrays) and before.layout is layout:
            return cls(layout, [part.copy() for part in before.parts], before.counts.copy(), before.reads.copy())
        floats, shape = np.zeros((batch, layout.floats), np.float32), (batch, *layout.read[READOUT].shape)
        for name, (each, rows, begin) in layout.arrays.items():
            whole = floats[:, begin : begin + rows * each.size].reshape(batch, rows, each.size)
            whole[..., each.places] = before[name].reshape(batch, rows, each.places.size)
            floats[:, begin : begin + rows * each.size] = whole.reshape(batch, rows * each.size)
        counts = np.array(before[layout.counted]) if layout.counted in before else np.zeros(shape, np.int64)
        return cls(layout, [floats], counts, before[READOUT].astype(np.float64))

    def fits(self, layout: CarriedLayout, batch: int) -> bool:
        """Return whether these are the arrays of so many samples, of the engine with that layout, and not used up."""
        return self.layout is layout and len(self.counts) == batch and len(self.parts) > 0

    def addresses(self) -> Any:
        """Return where the row of each sample lies (batch,), where they are several parts."""
        if self.rows is None:
            each = [(part.ctypes.data, part.strides[0], len(part)) for part in self.parts]
            self.rows = np.array([first + k * stride for first, stride, count in each for k in range(count)], np.int64)
        return self.rows

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name in self.layout.read:
            if name == self.layout.counted:
                return self.counts
            return self.reads.astype(self.layout.read[name].dtype)
        layout, rows, begin = self.layout.arrays[name]
        row = slice(begin, begin + rows * layout.size)
        floats = (
            self.parts[0][:, row] if len(self.parts) == 1 else np.concatenate([part[:, row] for part in self.parts])
        )
        whole = floats.reshape(len(floats), rows, layout.size)[..., layout.places]
        return whole.reshape(len(floats), *((rows,) if name.endswith(LINE) else ()), *layout.shape)

    def join(self, others: Sequence[Mapping[str, NDArray[Any]]]) -> CarriedArrays | None:
        """Return these and those of other samples, if the same engine made them."""
        every = [self]
        for each in others:
            if not isinstance(each, CarriedArrays) or each.layout is not self.layout:
                return None
            every.append(each)
        parts = [part for each in every for part in each.parts]
        counts, reads = np.concatenate([each.counts for each in every]), np.concatenate([each.reads for each in every])
        return CarriedArrays(self.layout, parts, counts, reads, np.concatenate([each.addresses() for each in every]))

    def take(self, samples: Samples) -> CarriedArrays:
        """Return the arrays of some of the samples as they lie, copied but for parts that are taken whole."""
        counts, reads = np.array(self.counts[samples]), np.array(self.reads[samples])
        if isinstance(samples, slice) and len(self.parts) == len(self.counts) and len(counts):
            return CarriedArrays(self.layout, self.parts[samples], counts, reads)
        floats = self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts)
        return CarriedArrays(self.layout, [np.array(floats[samples])], counts, reads)

    def __iter__(self) -> Iterator[str]:
        return iter([*self.layout.arrays, *self.layout.read])

    def __len__(self) -> int:
        return len(self.layout.arrays) + len(self.layout.read)
