"""What is made of a network once, at load: layouts, tables and parameters, so that a run only calls kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.engines.event.connections import Feed, Windows, feed_of, panels, windows_of
from models.engines.event.layouts import Layout, aligned
from models.engines.event.vectors import LANES
from models.engines.fan_out import fan_out
from models.errors import EngineUnavailable
from models.network import FloatArray, Network
from models.nodes import IF, Fire, Flatten, Neuron, Pool2d, Reset, Spiking, Weighted

NO_FLOATS: FloatArray = np.empty(0, np.float32)
FIRES_AT = 3  # the row of `Neurons.parameters`


class Neurons(NamedTuple):
    """A neuron layer's parameters for `kernels.run_neurons`.

    `parameters` has a row each for decay, gain, drive, fires_at and change: of the layout's `size`, or of one vector
    where all neurons are alike. A neuron fires at `fires_at` or above; `change` is what a spike subtracts, or what it
    resets to if `to_value` is 1. `recurrent_weight` has panels of a row for each sender, and is empty where there is no
    such connection.
    """

    size: int
    parameters: FloatArray
    to_value: int
    recurrent_weight: FloatArray
    recurrent_bias: FloatArray


@dataclass(frozen=True)
class Connection:
    """A weighted connection: its tables, its bias (size,) and what an event at each place costs (size,), or (1,) if at all the same."""

    feed: Feed
    bias: FloatArray
    cost: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """A network made ready: what each of its nodes needs, by name."""

    layouts: dict[str, Layout]
    connections: dict[str, Connection]
    neurons: dict[str, Neurons]
    windows: dict[str, Windows]

    @classmethod
    def of(cls, network: Network) -> Plan:
        """Return the plan of a network; raises EngineUnavailable for a node that no kernel runs."""
        spec = network.spec
        layouts = {name: Layout.of(shape) for name, shape in spec.output_shapes.items()}
        arriving = {node.name: layouts[spec.sources[node.name][0]] for node in spec.nodes}
        plan = cls(layouts, {}, {}, {})
        for node in spec.nodes:
            if not isinstance(node, Weighted | Neuron | Pool2d | Flatten):
                raise EngineUnavailable(f"node '{node.name}': engine 'event' has no kernel for a {node.type}")
            before, after = arriving[node.name], layouts[node.name]
            if isinstance(node, Weighted):
                plan.connections[node.name] = _connection(node, network, before, after)
            elif isinstance(node, Neuron):
                plan.neurons[node.name] = _neurons(node, network, after)
            elif isinstance(node, Pool2d):
                plan.windows[node.name] = windows_of(node, before, after)
        return plan

    @cached_property
    def bytes_per_step(self) -> int:
        """The most that a run allocates for one step of one sample.

        An index, a value and a float of a row at each place; an index and a value for each place that a pool takes to a
        window.
        """
        places = sum(layout.size for layout in self.layouts.values())
        return 12 * places + 8 * sum(windows.outputs.size for windows in self.windows.values())


def _connection(node: Weighted, network: Network, before: Layout, after: Layout) -> Connection:
    bias = network.tensor(node, "bias")
    per_channel = np.zeros(after.shape[0], np.float32) if bias is None else bias
    spread = np.broadcast_to(per_channel.reshape(-1, *(1 for _ in after.shape[1:])), after.shape)
    by_element = fan_out(node, before.shape).ravel()
    if (by_element == by_element[0]).all():
        cost = by_element[:1]
    else:
        cost = np.zeros(before.size, np.int64)
        cost[before.places] = by_element
    return Connection(feed_of(node, network, before, after), after.laid(spread.reshape(-1)), cost)


def _neurons(node: Neuron, network: Network, layout: Layout) -> Neurons:
    def parameter(name: str) -> FloatArray:
        return np.broadcast_to(network.parameter(node, name), layout.shape).reshape(-1)

    decay = np.ones(layout.places.size, np.float32) if isinstance(node, IF) else parameter("decay")
    rows = [decay, parameter("gain"), parameter("drive")]
    if not isinstance(node, Spiking):
        never, nothing = np.full_like(decay, np.inf), np.zeros_like(decay)
        return Neurons(layout.size, _laid([*rows, never, nothing], layout), 0, NO_FLOATS, NO_FLOATS)
    # A float is above a threshold exactly where it is at least the float after it.
    threshold = parameter("threshold")
    fires_at = threshold if node.fire is Fire.AT_THRESHOLD else np.nextafter(threshold, np.float32(np.inf))
    change = {Reset.SUBTRACT: "threshold", Reset.VALUE: "reset_value"}.get(node.reset)
    rows += [fires_at, np.zeros_like(decay) if change is None else parameter(change)]
    return Neurons(layout.size, _laid(rows, layout), int(node.reset is Reset.VALUE), *_recurrent(node, network, layout))


def _laid(rows: list[FloatArray], layout: Layout) -> FloatArray:
    """Return the parameters in a layout, whose padding never fires; of one vector where all neurons are alike."""
    stacked = np.stack(rows)
    decay, gain, drive, fires_at, change = stacked[:, 0]
    alike = (stacked == stacked[:, :1]).all()
    if alike and (layout.places.size == layout.size or (drive == 0 and fires_at > 0)):
        return aligned((len(rows), LANES), stacked[:, :1]).ravel()
    laid = layout.laid(stacked)
    padding = np.setdiff1d(np.arange(layout.size), layout.places)
    laid[FIRES_AT, padding] = np.inf
    return laid.ravel()


def _recurrent(node: Spiking, network: Network, layout: Layout) -> tuple[FloatArray, FloatArray]:
    if node.recurrent is None:
        return NO_FLOATS, NO_FLOATS
    weight = aligned((layout.size, layout.size))
    weight[np.ix_(layout.places, layout.places)] = network.tensors[f"{node.name}.recurrent.weight"].T
    bias = network.tensor(node, "recurrent.bias")
    return panels(weight), layout.laid(np.zeros(layout.places.size, np.float32) if bias is None else bias)
