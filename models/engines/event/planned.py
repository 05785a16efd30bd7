"""What a node needs of its network in a run, computed once: one class for each kind of node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.engines.event.connections import Feed, Windows
from spikeserve.models.engines.event.layouts import Layout
from spikeserve.models.engines.event.native import Native
from spikeserve.models.spec.network import FloatArray


class Neurons(NamedTuple):
    """A neuron layer's step and parameters for `kernels.run_neurons`.

    `step` is the address of its function, see `steps.step_of`. `parameters` has those of one number, padded to whole
    vectors, and then a row of the layout's `size` for each of the others, by name. The layer has so many `states`,
    which at rest are the rows `rest`; a sample's lie from `carried_at` on, see `CarriedLayout`. `inside` has the bits
    of each vector that are no padding. `recurrent_weight` has panels of a row for each sender, and is empty where there
    is no such connection; `recurrent_bias` (2 * size) is its bias at the first step and at later ones.
    `recurrent_summed` and `recurrent_grid` are as in a `Feed`.
    """

    size: int
    step: int
    states: int
    parameters: FloatArray
    rest: FloatArray
    inside: NDArray[np.uint16]
    recurrent_weight: FloatArray
    recurrent_bias: FloatArray
    recurrent_summed: int
    recurrent_grid: float
    carried_at: int


@dataclass(frozen=True, slots=True)
class Connection:
    """A weighted connection: its tables, its bias (size,) and an event's cost at each place (size,), or at all (1,)."""

    layout: Layout
    feed: Feed
    bias: FloatArray
    cost: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of neurons: if it fires, or several times a step, if its membranes are read, a recurrent spike's cost."""

    name: str
    layout: Layout
    neurons: Neurons
    code: Native  # of `neurons.step`
    spiking: bool
    several: bool
    traced: bool
    fan_out: int  # 0 where it is not recurrent
    room: int  # floats, see `kernels.run_neurons`


@dataclass(frozen=True, slots=True)
class Pooling:
    """A pool: its windows, whether it takes the maximum or what it divides by, and if values other than 1 go densely.

    Two cases need dense rows: a maximum of values other than 0 and 1, where 0 counts too, and a sum that float32
    cannot hold.
    """

    layout: Layout
    windows: Windows
    largest: bool
    divisor: float
    dense: bool


@dataclass(frozen=True, slots=True)
class Scaling:
    """The factor of each place, or of all (1,)."""

    scale: FloatArray


@dataclass(frozen=True, slots=True)
class Delaying:
    """The delay of each place in steps, or of all (1,)."""

    name: str
    delay: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Moving:
    """The place to which each place is moved."""

    layout: Layout
    moves: NDArray[np.int32]


Planned: TypeAlias = Connection | Layer | Pooling | Scaling | Delaying | Moving
