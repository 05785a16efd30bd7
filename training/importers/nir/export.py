"""From a network of ours to a NIR graph: as near to NIR's equations as they go, and exactly in the graph's metadata.

A membrane that decays is NIR's under forward Euler, `decay = 1 - dt/tau`; a synaptic current likewise. What NIR has no
node or parameter for is refused by name. Parameters are written such that the dialect that the file names reads them:
sinabs' taus are steps, `decay = exp(-1/tau)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from spikeserve.models.spec import INPUT
from spikeserve.models.spec.network import FloatArray, Network
from spikeserve.models.spec.nodes import (
    IF,
    LI,
    LIF,
    AvgPool2d,
    Charge,
    Conv1d,
    Conv2d,
    CubaLI,
    CubaLIF,
    Delay,
    Fire,
    Firing,
    Flatten,
    I,
    Leaky,
    Linear,
    Node,
    Reset,
    ResetTiming,
    Scale,
    SpikingBase,
    SumPool2d,
    Synapse,
    Threshold,
)
from spikeserve.models.spec.parameters import Shape
from spikeserve.models.version import VERSION
from spikeserve.training.errors import ExportRefused
from spikeserve.training.importers.nir.dialects import DIALECTS
from spikeserve.training.importers.nir.file import cell_name, digest, loop_name, weights_of
from spikeserve.training.importers.nir.graph import Array, GraphNode, NestedGraph
from spikeserve.training.importers.nir.rules import DialectName, GraphReset, Rules

USUAL_DT = 1e-4  # which snnTorch and SpikingJelly take for granted

Parameters = dict[str, Any]


def to_graph(network: Network, dt: float | None = None) -> NestedGraph:
    """Return a network as a NIR graph; `dt` where the network does not know its own.

    Raises ExportRefused with a sentence that names the node and what NIR cannot express about it.
    """
    rules = named_rules(network, dt)
    writer = _Writer(network, rules)
    nodes = {INPUT: GraphNode(INPUT, "Input", {"shape": np.array(network.spec.input.shape)})}
    edges = []
    for node in network.spec.nodes:
        recurrent = getattr(node, "recurrent", None)
        name = cell_name(node.name, recurrent=recurrent is not None)
        kind, parameters = writer.write(node)
        nodes[name] = GraphNode(name, kind, parameters)
        edges += [(writer.names[source], name) for source in network.spec.sources[node.name]]
        writer.names[node.name] = name
        if recurrent is not None:
            loop = loop_name(node.name)
            nodes[loop] = GraphNode(loop, *writer.dense(f"{node.name}.recurrent"))
            edges += [(name, loop), (loop, name)]
    last = network.spec.nodes[-1].name
    output = "output" if "output" not in nodes else "output.of_the_graph"  # a dot, which no node of ours has
    nodes[output] = GraphNode(output, "Output", {"shape": np.array(network.spec.output_shapes[last])})
    edges.append((writer.names[last], output))
    return NestedGraph(nodes, tuple(edges), _metadata(network, rules, nodes, tuple(edges)))


def _metadata(
    network: Network, rules: Rules, nodes: Mapping[str, GraphNode], edges: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    weights = weights_of(network)
    contents: dict[str, Any] = {
        "producer": f"spikeserve {VERSION}",
        "dialect": str(rules.dialect),
        "dt": rules.dt,
        "reset": str(rules.reset),
        "reset_timing": str(rules.reset_timing),
        "spec": network.spec.model_dump_json(exclude_none=True),
        "digest": digest(nodes, edges),
    }
    kept = {name: tensor for name, tensor in network.tensors.items() if name not in weights}
    return contents | ({"tensors": kept} if kept else {})


def named_rules(network: Network, dt: float | None) -> Rules:
    """Return the rules that come nearest to what the network's neurons do."""
    spiking = [node for node in network.spec.nodes if isinstance(node, SpikingBase)]
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


def _reset(network: Network, node: SpikingBase) -> GraphReset:
    if node.reset is not Reset.VALUE:
        return GraphReset(str(node.reset))
    return GraphReset.VALUE if network.parameter(node, "reset_value").any() else GraphReset.ZERO  # type: ignore[arg-type]


def _dialect(network: Network, timing: ResetTiming) -> DialectName:
    fires = {node.fire for node in network.spec.nodes if isinstance(node, Firing)}
    charges = {node.charge for node in network.spec.nodes if isinstance(node, Leaky)}
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
            case Linear():
                return self.dense(node.name)
            case Conv1d() | Conv2d():
                return node.type, self._convolution(node)
            case SumPool2d() | AvgPool2d() if node.overhang or (isinstance(node, AvgPool2d) and node.uneven):
                raise ExportRefused(
                    f"node '{node.name}': NIR's pools have no windows that cover fewer values at an edge"
                )
            case SumPool2d() | AvgPool2d():
                windows = {"kernel_size": node.kernel_size, "stride": node.hop, "padding": node.padding}
                return node.type, {key: np.array(sizes) for key, sizes in windows.items()}
            case Flatten():
                return "Flatten", {"start_dim": 0, "end_dim": -1, "input_type": np.array(self._shape(node))}
            case Scale() if node.by_step or node.offset != 0:
                raise ExportRefused(f"node '{node.name}': NIR's Scale has no offset, and no parameters for each step")
            case Scale():
                return "Scale", {"scale": self._whole(node, "scale")}
            case Delay():
                return "Delay", {"delay": self._whole(node, "delay").astype(np.float64) * self.dt}
            case Threshold():
                return "Threshold", {"threshold": self._whole(node, "threshold")}
            case IF() | I():
                return node.type, self._integrator(node) | self._firing(node)
            case LIF() | LI() if node.charge is Charge.DECAY and bool((self._whole(node, "decay") == 1).all()):
                return "IF" if isinstance(node, LIF) else "I", self._integrator(node) | self._firing(node)
            case LIF() | LI():
                return node.type, self._membrane(node, "tau") | self._firing(node)
            case CubaLIF() | CubaLI():
                return node.type, self._synapse(node) | self._membrane(node, "tau_mem") | self._firing(node)
        raise ExportRefused(f"node '{node.name}': NIR has no node for {node.type}")

    def dense(self, name: str) -> tuple[str, Parameters]:
        """Return the Linear or Affine of the tensors that begin with `name`."""
        tensors = self.network.tensors
        weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
        return ("Linear", {"weight": weight}) if bias is None else ("Affine", {"weight": weight, "bias": bias})

    def _convolution(self, node: Conv1d | Conv2d) -> Parameters:
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
        return (numbers if isinstance(node, Conv1d) else arrays) | {
            "groups": node.groups,
            "weight": self.network.tensors[f"{node.name}.weight"],
            "bias": np.zeros(node.out_channels, np.float32) if bias is None else bias,
        }

    def _integrator(self, node: IF | I | LIF | LI) -> Parameters:
        if np.any(self._whole(node, "drive")):
            raise ExportRefused(f"node '{node.name}': drive is not 0, which NIR's IF and I have no parameter for")
        return {"r": self._whole(node, "gain") / (self.dt if self.integrates_dt else 1.0)}

    def _membrane(self, node: LIF | LI | CubaLIF | CubaLI, tau: str) -> Parameters:
        exponential = self.by_exponential and node.charge is Charge.DECAY
        if node.charge not in MEMBRANES:
            raise ExportRefused(f"node '{node.name}': charge is '{node.charge}', which NIR's {node.type} does not do")
        rule = _of_exponential if exponential else MEMBRANES[node.charge]
        with np.errstate(divide="ignore", invalid="ignore"):  # what has no time constant is refused below
            seconds, r, leak = rule(lambda name: self._whole(node, name), self.dt)
        _require_tau(node, "membrane", seconds)
        return {tau: seconds, "r": r, "v_leak": leak}

    def _synapse(self, node: CubaLIF | CubaLI) -> Parameters:
        if node.synapse not in SYNAPSES:
            raise ExportRefused(f"node '{node.name}': synapse is '{node.synapse}', which NIR's {node.type} does not do")
        exponential = self.by_exponential and node.synapse is Synapse.SUM_THEN_DECAY
        rule = _of_syn_exponential if exponential else SYNAPSES[node.synapse]
        with np.errstate(divide="ignore", invalid="ignore"):
            seconds, w_in = rule(lambda name: self._whole(node, name), self.dt)
        _require_tau(node, "synaptic current", seconds)
        return {"tau_syn": seconds, "w_in": w_in}

    def _firing(self, node: Node) -> Parameters:
        if not isinstance(node, IF | LIF | CubaLIF):
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


def _padding(node: Conv1d | Conv2d) -> Shape | str:
    """Return the padding in numbers, which everybody reads, or "same" where it is not as wide behind as before."""
    uneven = any(window.before != window.after for window in node.windows)
    return "same" if uneven else tuple(window.before for window in node.windows)


def _require_tau(node: Node, what: str, tau: Array) -> None:
    if not (np.isfinite(tau).all() and tau.min() > 0):
        raise ExportRefused(
            f"node '{node.name}': its {what} keeps all or nothing of what it holds, which NIR's {node.type} has no "
            "time constant for"
        )


Of = Callable[[str], Array]  # a parameter's name -> its values
Tau = tuple[Array, Array]  # a time constant in seconds, and what the input is multiplied by


def _steps_of(decay: Array) -> Array:
    """Return the time constant in steps of a decay, `1 - 1 / tau`."""
    return 1.0 / (1.0 - decay.astype(np.float64))


def _tau_or_rate(of: Of) -> Array:
    """Return tau in steps, from whichever of the two the neuron has."""
    tau = of("tau").astype(np.float64)
    return tau if not np.isnan(tau).any() else 1.0 / of("rate").astype(np.float64)


def _of_decay(of: Of, dt: float) -> tuple[Array, Array, Array]:
    steps = _steps_of(of("decay"))
    return steps * dt, of("gain") * steps, of("drive") * steps


def _of_exponential(of: Of, _: float) -> tuple[Array, Array, Array]:
    decay = of("decay").astype(np.float64)
    return -1.0 / np.log(decay), of("gain"), np.where(decay < 1, of("drive") / (1.0 - decay), 0.0)


def _of_rate(of: Of, dt: float) -> tuple[Array, Array, Array]:
    return _tau_or_rate(of) * dt, of("gain"), of("leak")


def _of_leak_then_add(of: Of, dt: float) -> tuple[Array, Array, Array]:
    return _tau_or_rate(of) * dt, of("gain") * _tau_or_rate(of), of("leak")


MEMBRANES: Mapping[Charge, Callable[[Of, float], tuple[Array, Array, Array]]] = {
    Charge.DECAY: _of_decay,
    Charge.EULER: _of_rate,
    Charge.EULER_INPUT_FIRST: _of_rate,
    Charge.RELAX: _of_rate,
    Charge.LEAK_THEN_ADD: _of_leak_then_add,
}


def _of_syn_exponential(of: Of, _: float) -> Tau:
    return -1.0 / np.log(of("syn_decay").astype(np.float64)), of("syn_gain")


def _of_syn_decay(of: Of, dt: float) -> Tau:
    steps = _steps_of(of("syn_decay"))
    return steps * dt, of("syn_gain") * steps


def _of_sum_then_decay(of: Of, dt: float) -> Tau:
    seconds, w_in = _of_syn_decay(of, dt)
    return seconds, w_in * of("syn_decay")


def _of_syn_rate(of: Of, dt: float) -> Tau:
    return dt / of("syn_rate").astype(np.float64), of("syn_gain")


def _of_jump(of: Of, dt: float) -> Tau:
    steps = 1.0 / of("syn_rate").astype(np.float64)
    return steps * dt, of("syn_gain") * steps


SYNAPSES: Mapping[Synapse, Callable[[Of, float], Tau]] = {
    Synapse.DECAY: _of_syn_decay,
    Synapse.EULER: _of_syn_rate,
    Synapse.JUMP: _of_jump,
    Synapse.SUM_THEN_DECAY: _of_sum_then_decay,
}
