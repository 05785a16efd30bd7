"""Norse: what its neurons compute, as nodes.

A neuron fires above its threshold and resets at once, to v_reset; LIFBox may subtract. dt times an inverse time
constant is one number, rounded as Norse rounds it. A membrane starts at v_leak, an IAF's at v_reset.

A current charged the membrane one step after its input until it was let jump first: in 1.0.0, and in 1.1.0 also that of
LIF and LIFRefracCell. Those of LSNN are late still.
"""

from __future__ import annotations

from typing import Any

import norse.torch as norse
import torch
from norse.torch.functional.lsnn import lsnn_feed_forward_step, lsnn_step
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.lif_box import LIFBoxCell
from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell
from torch import Tensor, nn

from spikeserve.models.spec import nodes
from spikeserve.models.spec.nodes import Recurrent
from spikeserve.models.spec.rules import Adapt, Charge, Fire, Joins, Reset, Synapse
from spikeserve.plugins.frameworks.framework import Framework, Layer, Rule, TimeAxes, folded, stepped
from spikeserve.plugins.frameworks.nouns import ModuleRun
from spikeserve.plugins.frameworks.torch import MODULES
from spikeserve.training.importers import connections

CELLS = (SNNCell, SNNRecurrentCell, norse.LILinearCell)
WEIGHTED = (SNNRecurrent, SNNRecurrentCell, norse.LILinearCell)  # they are made with a number of inputs and neurons
RESETS = {reset_value: Reset.VALUE, reset_subtract: Reset.SUBTRACT}


def box(layer: Layer) -> None:
    """Convert LIFBoxCell: v + dt * tau_mem_inv * (in + v_leak - v)."""
    p = layer.module.p
    if p.reset_method not in RESETS:
        layer.refuse("reset_method", "it is neither reset_value nor reset_subtract")
        return
    reset = RESETS[p.reset_method]
    fields = _spiking(layer) if reset is Reset.VALUE else _firing(layer) | {"reset": Reset.SUBTRACT}
    layer.add(nodes.LIF, charge=Charge.EULER_INPUT_FIRST, **_membrane(layer), **fields)


def leaky(layer: Layer) -> None:
    """Convert the LIFs, also those that rest after a spike: the current jumps by its input, charges v, then decays.

    A refractory one's membrane stays for rho_reset steps after a spike while its current flows on.
    """
    _refuse_adjoint(layer)
    module = layer.module
    rests = {"refractory": module.p.rho_reset} if hasattr(module.p, "rho_reset") else {}
    fields = _membrane(layer) | _current(layer) | _spiking(layer) | rests | _recurrent(layer)
    layer.add(nodes.CubaLIF, charge=Charge.EULER, **fields)


def exponential(layer: Layer) -> None:
    """Convert the LIFExs: a LIF that grows by sharpness * exp((v - v_th) / sharpness) too."""
    layer.add(nodes.CubaLIF, **_growing(layer), **_recurrent(layer))


def adaptive_exponential(layer: Layer) -> None:
    """Convert the LIFAdExs: the same, with a current that opposes it."""
    p, growing = layer.module.p, _growing(layer)
    adapt = {"adapt": Adapt.CURRENT, "adapt_rate": layer.module.dt * p.tau_ada_inv}
    adapt |= {"adapt_coupling": p.adaptation_current, "adapt_gain": p.adaptation_spike}
    layer.add(nodes.CubaALIF, **growing, **adapt, **_recurrent(layer))


def _growing(layer: Layer) -> dict[str, Any]:
    _refuse_adjoint(layer)
    p = layer.module.p
    growth = {"charge": Charge.EXPONENTIAL, "sharpness": p.delta_T, "critical": p.v_th}
    return growth | _membrane(layer) | _current(layer) | _spiking(layer)


def _refuse_adjoint(layer: Layer) -> None:
    method = _parameters(layer).method
    layer.refuse_unless(method != "adjoint", "method is 'adjoint'", "another equation steps it")


def adaptive(layer: Layer) -> None:
    """Convert the LSNNs: the current of the step before charges; the threshold relaxes, and jumps by beta."""
    module = layer.module
    step = lsnn_step if isinstance(module, SNNRecurrent | SNNRecurrentCell) else lsnn_feed_forward_step
    layer.refuse_unless(module.activation is step, "adjoint is True", "another equation steps it")
    adapt = {"adapt": Adapt.RELAX, "adapt_rate": module.dt * module.p.tau_adapt_inv, "adapt_gain": module.p.beta}
    current = _current(layer) | {"synapse": Synapse.LATE_JUMP}
    fields = _membrane(layer) | current | _spiking(layer) | adapt | _recurrent(layer)
    layer.add(nodes.CubaALIF, charge=Charge.EULER, **fields)


def _recurrent(layer: Layer) -> dict[str, Any]:
    """Append the connection of the input of a layer that holds its weights, and return its recurrent connection."""
    module = layer.module
    if not isinstance(module, WEIGHTED):
        return {}
    weight = layer.array("input_weights", module.input_weights)
    layer.builder.add(connections.linear(f"{layer.name}_input", weight, None))
    if isinstance(module, norse.LILinearCell):
        return {}
    return {"recurrent": Recurrent(joins=Joins.CHARGE), "tensors": {"recurrent.weight": module.recurrent_weights}}


def integrate(layer: Layer) -> None:
    """Convert IAFCell and IAF: v + in, without dt."""
    layer.add(nodes.IF, start=layer.module.p.v_reset, **_spiking(layer))


def readout(layer: Layer) -> None:
    """Convert LICell, LI and LILinearCell, which holds its input's weights too."""
    layer.add(nodes.CubaLI, charge=Charge.EULER, **_membrane(layer), **_current(layer), **_recurrent(layer))


def box_readout(layer: Layer) -> None:
    """Convert LIBoxCell."""
    layer.add(nodes.LI, charge=Charge.EULER, **_membrane(layer))


def _parameters(layer: Layer) -> Any:
    """Return the parameters of a neuron; those of a refractory one hold those of the LIF that it else is."""
    return getattr(layer.module.p, "lif", layer.module.p)


def _membrane(layer: Layer) -> dict[str, Any]:
    lengths = set(torch.as_tensor(layer.module.dt).flatten().tolist())
    layer.refuse_unless(len(lengths) == 1, f"dt is {sorted(lengths)}", "a step has one length")
    layer.findings.steps |= lengths
    parameters = _parameters(layer)
    rate = layer.module.dt * parameters.tau_mem_inv
    return {"rate": rate, "leak": parameters.v_leak, "start": parameters.v_leak}


def _current(layer: Layer) -> dict[str, Any]:
    return {"synapse": Synapse.JUMP, "syn_rate": layer.module.dt * _parameters(layer).tau_syn_inv}


def _firing(layer: Layer) -> dict[str, Any]:
    return {"threshold": _parameters(layer).v_th, "fire": Fire.ABOVE_THRESHOLD}


def _spiking(layer: Layer) -> dict[str, Any]:
    return _firing(layer) | {"reset": Reset.VALUE, "reset_value": _parameters(layer).v_reset}


def run(module: nn.Module, steps: Tensor) -> ModuleRun:
    """Run a module from rest: a cell step by step, a layer at once."""
    if isinstance(module, SNN | SNNRecurrent):
        recorded, module.record_states = module.record_states, True
        output, states = module(steps)
        module.record_states = recorded
        return ModuleRun(output, getattr(states, "lif", states).v)
    if not isinstance(module, CELLS):
        return folded(module, steps)
    state = None

    def step(current: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal state
        output, state = module(current, state)
        return output, getattr(state, "lif", state).v

    return stepped(step, steps)


def takes(module: nn.Module) -> TimeAxes | None:
    """Return the leading axes of a module with a state: a cell takes one step, a layer all of them."""
    if isinstance(module, SNN | SNNRecurrent):
        return TimeAxes.TIME_FIRST
    return TimeAxes.STEP if isinstance(module, CELLS) else None


LIFS = (norse.LIFCell, norse.LIF, norse.LIFRecurrentCell, norse.LIFRecurrent)
REFRACTORY = (norse.LIFRefracCell, norse.LIFRefracRecurrentCell, norse.LIFRefracRecurrent)
EXPONENTIAL = (norse.LIFExCell, norse.LIFEx, norse.LIFExRecurrentCell, norse.LIFExRecurrent)
ADAPTIVE_EXPONENTIAL = (norse.LIFAdExCell, norse.LIFAdEx, norse.LIFAdExRecurrentCell, norse.LIFAdExRecurrent)
ADAPTIVE = (norse.LSNNCell, norse.LSNN, norse.LSNNRecurrentCell, norse.LSNNRecurrent)
RULES: dict[type[nn.Module], Rule] = {
    LIFBoxCell: box,
    **dict.fromkeys((*LIFS, *REFRACTORY), leaky),
    **dict.fromkeys(EXPONENTIAL, exponential),
    **dict.fromkeys(ADAPTIVE_EXPONENTIAL, adaptive_exponential),
    **dict.fromkeys(ADAPTIVE, adaptive),
    **dict.fromkeys((norse.IAFCell, norse.IAF), integrate),
    **dict.fromkeys((norse.LICell, norse.LI, norse.LILinearCell), readout),
    norse.LIBoxCell: box_readout,
}

FRAMEWORK = Framework(
    name="norse",
    rule="fires above the threshold; resets at once, to v_reset unless reset_method subtracts",
    containers=frozenset({nn.Sequential, norse.SequentialState, norse.Lift}),
    rules={**MODULES, **RULES},
    run=run,
    takes=takes,
)
