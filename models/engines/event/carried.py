"""A state as the kernels hold it: read from a `State` before a run goes on, and offered as one after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding.inputs import Samples
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.state import READ, EngineArrays, State, arrays_of
from spikeserve.models.spec.network import FloatArray, Network

LINE = ".line"


@dataclass(frozen=True)
class CarriedLayout:
    """Where the arrays of a network's state lie.

    Those of all neurons lie in one array of `floats` for each sample, in the order of `arrays_of`: the states of a
    layer's program, then a recurrent layer's last spikes. `rows` has the layout of each array and where it begins, and
    `begins` where a layer's first does. `lines` has the layout and the longest delay of each Delay.
    """

    rows: dict[str, tuple[Layout, int]]
    lines: dict[str, tuple[Layout, int]]
    floats: int
    begins: dict[str, int]

    @classmethod
    def of(cls, network: Network, layouts: Mapping[str, Layout]) -> CarriedLayout:
        """Return the layout of a network's state."""
        rows: dict[str, tuple[Layout, int]] = {}
        lines: dict[str, tuple[Layout, int]] = {}
        floats, begins = 0, dict[str, int]()
        for name, array in arrays_of(network).items():
            node = name.rpartition(".")[0]
            if name.endswith(LINE):
                lines[name] = layouts[node], array.shape[0]
            elif name not in READ:
                begins.setdefault(node, floats)
                rows[name] = layouts[node], floats
                floats += layouts[node].size
        begins = {node.name: begins.get(node.name, 0) for node in network.spec.nodes}  # some remember nothing
        return cls(rows, lines, floats, begins)


@dataclass(slots=True)
class Carried:
    """The state of some samples.

    `floats` (samples, layout.floats) is the neurons' part, `lines` have (samples, longest delay, size) for each Delay,
    and `read` are the readout's arrays, as in `State`.
    """

    layout: CarriedLayout
    floats: FloatArray
    lines: dict[str, FloatArray]
    read: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, layout: CarriedLayout, state: State, samples: int) -> Carried:
        """Convert the state of so many samples; its arrays are copied."""
        floats = np.zeros((samples, layout.floats), np.float32)
        carried = cls(layout, floats, {}, {name: state.arrays[name] for name in READ if name in state.arrays})
        for name, (each, _) in layout.rows.items():
            carried.rows(name)[:, each.places] = state.arrays[name].reshape(samples, each.places.size)
        for name, (each, longest) in layout.lines.items():
            carried.lines[name] = each.to_rows(state.arrays[name].reshape(samples, longest, each.places.size))
        return carried

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.floats)

    def rows(self, name: str) -> FloatArray:
        """Return one of the neurons' arrays as it lies, (samples, size)."""
        layout, before = self.layout.rows[name]
        return self.floats[:, before : before + layout.size]

    def take(self, samples: Samples) -> Carried:
        """Return the state of some of the samples, copied."""
        read = {name: np.array(array[samples]) for name, array in self.read.items()}
        lines = {name: np.array(line[samples]) for name, line in self.lines.items()}
        return Carried(self.layout, np.array(self.floats[samples]), lines, read)

    @classmethod
    def joined(cls, parts: Sequence[Carried]) -> Carried:
        """Concatenate the states of several parts of a batch."""
        first, *others = parts
        if not others:
            return first
        return cls(
            first.layout,
            np.concatenate([part.floats for part in parts]),
            {name: np.concatenate([part.lines[name] for part in parts]) for name in first.lines},
            {name: np.concatenate([part.read[name] for part in parts]) for name in first.read},
        )

    def array(self, name: str) -> NDArray[Any]:
        """Return an array as `State` describes it."""
        if name in self.read:
            return self.read[name]
        if name in self.layout.lines:
            layout, longest = self.layout.lines[name]
            return self.lines[name][..., layout.places].reshape(self.samples, longest, *layout.shape)
        layout, _ = self.layout.rows[name]
        return self.rows(name)[:, layout.places].reshape(self.samples, *layout.shape)


class CarriedArrays(EngineArrays):
    """The arrays of a `State`, each converted whenever it is looked up, since most runs end without a look.

    It holds the state and no other part of the run: no events, inputs or weights. That is, for each sample, 4 bytes
    for each state of each neuron and, in a recurrent layer, its last spike, with the layout's padding; 4 bytes for each
    element of a Delay's input and each step of its longest delay; and the readout. Samples whose states came from
    several runs are `parts` of their own, so that those of many sessions run as one batch and are not moved.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Carried]) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> NDArray[Any]:
        if len(self.parts) == 1:
            return self.parts[0].array(name)
        return np.concatenate([part.array(name) for part in self.parts])

    def join(self, others: Sequence[Mapping[str, NDArray[Any]]]) -> CarriedArrays | None:
        """Return these and those of other samples, if the same engine made them."""
        parts = list(self.parts)
        for each in others:
            if not isinstance(each, CarriedArrays) or each.layout is not self.layout:
                return None
            parts += each.parts
        return CarriedArrays(parts)

    @property
    def layout(self) -> CarriedLayout:
        """The layout, which is that of one engine's plan."""
        return self.parts[0].layout

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(part.samples for part in self.parts)

    def take(self, samples: Samples) -> CarriedArrays:
        """Return the arrays of some of the samples as they lie; parts that are taken whole are not copied."""
        if isinstance(samples, slice) and len(self.parts) == self.samples:
            taken = self.parts[samples]
            if taken:
                return CarriedArrays(taken)
        return CarriedArrays((Carried.joined(self.parts).take(samples),))

    def __iter__(self) -> Iterator[str]:
        layout = self.parts[0].layout
        return iter([*layout.rows, *layout.lines, *self.parts[0].read])

    def __len__(self) -> int:
        layout = self.parts[0].layout
        return len(layout.rows) + len(layout.lines) + len(self.parts[0].read)
