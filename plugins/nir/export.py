"""From a network of ours to a NIR graph: as near to NIR's equations as they go, and exactly in the graph's metadata.

A membrane that decays is NIR's under forward Euler, `decay = 1 - dt/tau`; a synaptic current likewise. What NIR has no
node or parameter for is refused by name. Parameters are written such that the dialect that the file names reads them:
sinabs' taus are steps, `decay = exp(-1/tau)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from spikeserve.models.spec import INPUT, nodes
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import Node
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.spec.rules import Charge, Fire, Reset, ResetTiming, Synapse
from spikeserve.models.version import VERSION
from spikeserve.plugins.nir.dialects import DIALECTS, DialectName, GraphReset, Rules, wide
from spikeserve.plugins.nir.file import cell_name, digest, loop_name, weights_of
from spikeserve.plugins.nir.graph import Array, GraphNode, NestedGraph
from spikeserve.training.errors import ExportRefused

USUAL_DT = 1e-4  # which snnTorch and SpikingJelly take for granted

# What NIR's equations can say.
CHARGES = (Charge.DECAY, Charge.EULER, Charge.EULER_INPUT_FIRST, Charge.RELAX, Charge.LEAK_THEN_ADD)
SYNAPSES = (Synapse.DECAY, Synapse.EULER, Synapse.JUMP, Synapse.SUM_THEN_DECAY)

Parameters = dict[str, Any]


def to_graph(network: Network, dt: float | None = None) -> NestedGraph:
    """Return a network as a NIR graph; `dt` where the network does not know its own.

    Raises ExportRefused with a sentence that names the node and what NIR cannot express about it.
    """
    rules = named_rules(network, dt)
    writer = _Writer(network, rules)
    cells = {INPUT: GraphNode(INPUT, "Input", {"shape": np.array(network.spec.input.arriving)})}
    edges = []
    for node in network.spec.nodes:
        recurrent = getattr(node, "recurrent", None)
        name = cell_name(node.name, recurrent=recurrent is not None)
        kind, parameters = writer.write(node)
        cells[name] = GraphNode(name, kind, parameters)
        edges += [(writer.names[source], name) for source in network.spec.sources[node.name]]
        writer.names[node.name] = name
        if recurrent is not None:
            loop = loop_name(node.name)
            cells[loop] = GraphNode(loop, *writer.dense(f"{node.name}.recurrent"))
            edges += [(name, loop), (loop, name)]
    last = network.spec.nodes[-1].name
    output = "output" if "output" not in cells else "output.of_the_graph"  # a dot, which no node of ours has
    cells[output] = GraphNode(output, "Output", {"shape": np.array(network.spec.output_shapes[last])})
    edges.append((writer.names[last], output))
    return NestedGraph(cells, tuple(edges), _metadata(network, rules, cells, tuple(edges)))


def _metadata(
    network: Network, rules: Rules, cells: Mapping[str, GraphNode], edges: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    weights = weights_of(network)
    contents: dict[str, Any] = {
        "producer": f"spikeserve {VERSION}",
        "dialect": str(rules.dialect),
        "dt": rules.dt,
        "reset": str(rules.reset),
        "reset_timing": str(rules.reset_timing),
        "spec": network.spec.model_dump_json(exclude_none=True),
        "digest": digest(cells, edges),
    }
    kept = {name: tensor for name, tensor in network.tensors.items() if name not in weights}
    return contents | ({"tensors": kept} if kept else {})


def named_rules(network: Network, dt: float | None) -> Rules:
    """Return the rules that come nearest to what the network's neurons do."""
    spiking = [node for node in network.spec.nodes if isinstance(node, nodes.SpikingBase)]
    resets = {_reset(network, node) for node in spiking} or {GraphReset.NONE}
    timings = {node.reset_timing for node in spiking} or {ResetTiming.SAME_STEP}
    if len(resets) > 1:
        raise ExportRefused(
            f"the network's neurons reset in {len(resets)} ways ({', '.join(sorted(resets))}), but a NIR file is read "
            "under one"
        )
    seconds = network.spec.dt if dt is None else dt
    # A late reset's timings differ where a layer is recurrent; the plain one stands for both.
    timing = min(timings, key=list(ResetTiming).index)
    return Rules(_dialect(network, timing), seconds or USUAL_DT, resets.pop(), timing)


def _reset(network: Network, node: nodes.SpikingBase) -> GraphReset:
    if node.reset is not Reset.VALUE:
        return GraphReset(str(node.reset))
    return GraphReset.VALUE if network.parameter(node, "reset_value").any() else GraphReset.ZERO  # type: ignore[arg-type]


def _dialect(network: Network, timing: ResetTiming) -> DialectName:
    fires = {node.fire for node in network.spec.nodes if isinstance(node, nodes.Firing)}
    charges = {node.charge for node in network.spec.nodes if isinstance(node, nodes.Leaky)}
    if Fire.MULTIPLE in fires:
        return DialectName.SINABS
    if Fire.AT_THRESHOLD in fires:
        return DialectName.SPIKINGJELLY
    if Charge.EULER_INPUT_FIRST in charges:
        return DialectName.NORSE
    if timing is not ResetTiming.SAME_STEP:
        return DialectName.SNNTORCH
    return DialectName.NIR


class _Writer:
    """Writes one node after the other; `names` leads from ours to the graph's."""

    def __init__(self, network: Network, rules: Rules) -> None:
        self.network = network
        self.by_exponential = DIALECTS[rules.dialect].counts_in_steps
        self.dt = 1.0 if self.by_exponential else rules.dt
        self.integrates_dt = rules.dialect in (DialectName.NIR, DialectName.SPIKINGJELLY)
        self.names = {INPUT: INPUT}

    def write(self, node: Node) -> tuple[str, Parameters]:
        """Return NIR's type for a node, and its parameters."""
        match node:
            case nodes.Linear():
                return self.dense(node.name)
            case nodes.Conv1d() | nodes.Conv2d():
                return node.type, self._convolution(node)
            case nodes.SumPool2d() | nodes.AvgPool2d() if node.overhang or getattr(node, "uneven", False):
                raise ExportRefused(
                    f"node '{node.name}': NIR's pools have no windows that cover fewer values at an edge"
                )
            case nodes.SumPool2d() | nodes.AvgPool2d():
                stride = node.stride or node.kernel_size
                windows = {"kernel_size": node.kernel_size, "stride": stride, "padding": node.padding}
                return node.type, {key: np.array(sizes) for key, sizes in windows.items()}
            case nodes.Flatten():
                return "Flatten", {"start_dim": 0, "end_dim": -1, "input_type": np.array(self._shape(node))}
            case nodes.Scale() if node.by_step or node.offset != 0:
                raise ExportRefused(f"node '{node.name}': NIR's Scale has no offset, and no parameters for each step")
            case nodes.Scale():
                return "Scale", {"scale": self._whole(node, "scale")}
            case nodes.Delay(taps=(_, *_)):
                raise ExportRefused(f"node '{node.name}': NIR's Delay has one delay for each element, and no taps")
            case nodes.Delay():
                return "Delay", {"delay": self._whole(node, "delay").astype(np.float64) * self.dt}
            case nodes.Threshold():
                return "Threshold", {"threshold": self._whole(node, "threshold")}
            case nodes.IF() | nodes.I():
                return node.type, self._integrator(node) | self._firing(node)
            case nodes.LIF() | nodes.LI() if node.charge is Charge.DECAY and (self._whole(node, "decay") == 1).all():
                return "IF" if isinstance(node, nodes.LIF) else "I", self._integrator(node) | self._firing(node)
            case nodes.LIF() | nodes.LI():
                return node.type, self._membrane(node, "tau") | self._firing(node)
            case nodes.CubaLIF() | nodes.CubaLI():
                return node.type, self._synapse(node) | self._membrane(node, "tau_mem") | self._firing(node)
        raise ExportRefused(f"node '{node.name}': NIR has no node for {node.type}")

    def dense(self, name: str) -> tuple[str, Parameters]:
        """Return the Linear or Affine of the tensors that begin with `name`."""
        tensors = self.network.tensors
        weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
        return ("Linear", {"weight": weight}) if bias is None else ("Affine", {"weight": weight, "bias": bias})

    def _convolution(self, node: nodes.Conv1d | nodes.Conv2d) -> Parameters:
        """Return a convolution's parameters; along one axis NIR has numbers where it has arrays along two."""
        bias, padding = self.network.tensor(node, "bias"), _padding(node)
        sizes = {
            "input_shape": self._shape(node)[1:],
            "stride": node.stride,
            "padding": padding,
            "dilation": node.dilation,
        }
        numbers = {key: value[0] if isinstance(value, tuple) else value for key, value in sizes.items()}
        arrays = {key: value if isinstance(value, str) else np.array(value) for key, value in sizes.items()}
        return (numbers if isinstance(node, nodes.Conv1d) else arrays) | {
            "groups": node.groups,
            "weight": self.network.tensors[f"{node.name}.weight"],
            "bias": np.zeros(node.out_channels, np.float32) if bias is None else bias,
        }

    def _integrator(self, node: nodes.IF | nodes.I | nodes.LIF | nodes.LI) -> Parameters:
        if np.any(self._whole(node, "drive")):
            raise ExportRefused(f"node '{node.name}': drive is not 0, which NIR's IF and I have no parameter for")
        return {"r": self._whole(node, "gain") / (self.dt if self.integrates_dt else 1.0)}

    def _membrane(self, node: nodes.LIF | nodes.LI | nodes.CubaLIF | nodes.CubaLI, tau: str) -> Parameters:
        """Return the membrane's time constant, its input's factor and its leak, as Euler's equations take them."""
        gain = self._whole(node, "gain")
        if node.charge not in CHARGES:
            raise ExportRefused(f"node '{node.name}': charge is '{node.charge}', which NIR's {node.type} does not do")
        with np.errstate(divide="ignore", invalid="ignore"):  # what has no time constant is refused below
            if node.charge is not Charge.DECAY:
                taus = wide(self._whole(node, "tau"))
                steps = taus if not np.isnan(taus).any() else 1.0 / wide(self._whole(node, "rate"))
                seconds, leak = steps * self.dt, self._whole(node, "leak")
                r = gain * steps if node.charge is Charge.LEAK_THEN_ADD else gain
            else:
                decay, drive = wide(self._whole(node, "decay")), self._whole(node, "drive")
                steps = 1.0 / (1.0 - decay)
                seconds, r, leak = steps * self.dt, gain * steps, drive * steps
                if self.by_exponential:
                    seconds, r, leak = -1.0 / np.log(decay), gain, np.where(decay < 1, drive / (1.0 - decay), 0.0)
        _require_tau(node, "membrane", seconds)
        return {tau: seconds, "r": r, "v_leak": leak}

    def _synapse(self, node: nodes.CubaLIF | nodes.CubaLI) -> Parameters:
        """Return the synaptic current's time constant and its input's factor, as Euler's equations take them."""
        gain = self._whole(node, "syn_gain")
        if node.synapse not in SYNAPSES:
            raise ExportRefused(f"node '{node.name}': synapse is '{node.synapse}', which NIR's {node.type} does not do")
        with np.errstate(divide="ignore", invalid="ignore"):
            if node.synapse in (Synapse.EULER, Synapse.JUMP):
                rate = wide(self._whole(node, "syn_rate"))
                seconds, w_in = self.dt / rate, gain
                if node.synapse is Synapse.JUMP:
                    steps = 1.0 / rate
                    seconds, w_in = steps * self.dt, gain * steps
            else:
                decay = self._whole(node, "syn_decay")
                steps = 1.0 / (1.0 - wide(decay))
                seconds, w_in = steps * self.dt, gain * steps
                if node.synapse is Synapse.SUM_THEN_DECAY:
                    w_in = w_in * decay
                    if self.by_exponential:
                        seconds, w_in = -1.0 / np.log(wide(decay)), gain
        _require_tau(node, "synaptic current", seconds)
        return {"tau_syn": seconds, "w_in": w_in}

    def _firing(self, node: Node) -> Parameters:
        if not isinstance(node, nodes.IF | nodes.LIF | nodes.CubaLIF):
            return {}
        firing: Parameters = {"v_threshold": self._whole(node, "threshold")}
        if node.reset is Reset.VALUE and self._whole(node, "reset_value").any():
            firing["v_reset"] = self._whole(node, "reset_value")
        return firing

    def _shape(self, node: Node) -> Shape:
        return self.network.spec.input_shapes[node.name]

    def _whole(self, node: Node, parameter: str) -> Array:
        """Return a parameter over the layer's whole shape, float32 where it goes into the file as it is."""
        if getattr(node, parameter) is None:
            return np.full(self._shape(node), np.nan)
        value: FloatArray = self.network.parameter(node, parameter)
        return np.array(np.broadcast_to(value, self._shape(node)))


def _padding(node: nodes.Conv1d | nodes.Conv2d) -> Shape | str:
    """Return the padding in numbers, which everybody reads, or "same" where it is not as wide behind as before."""
    uneven = any(window.before != window.after for window in node.windows)
    return "same" if uneven else tuple(window.before for window in node.windows)


def _require_tau(node: Node, what: str, tau: Array) -> None:
    if not (np.isfinite(tau).all() and tau.min() > 0):
        raise ExportRefused(
            f"node '{node.name}': its {what} keeps all or nothing of what it holds, which NIR's {node.type} has no "
            "time constant for"
        )
