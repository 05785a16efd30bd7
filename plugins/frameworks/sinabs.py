"""Sinabs: what its neurons compute, as nodes.

A neuron fires at its threshold, by default as often in a step as thresholds fit, and resets at once. A floor min_v_mem
then lifts the membrane. A recurrent connection gives nothing at the first step, not even its bias.
"""

from __future__ import annotations

from typing import Any

import sinabs.layers as sl
import torch
from sinabs import activation
from sinabs.layers.alif import ALIFSqueeze
from sinabs.network import Network
from torch import Tensor, nn

from spikeserve.models.spec.nodes import ALIF, IF, LI, LIF, CubaALIF, CubaLIF, Recurrent
from spikeserve.models.spec.rules import Fire, Reset, Synapse
from spikeserve.plugins.frameworks.framework import Framework, Layer, TimeAxes, folded
from spikeserve.plugins.frameworks.modifications import changes
from spikeserve.plugins.frameworks.nouns import ModuleRun
from spikeserve.plugins.frameworks.torch import MODULES, nothing, sum_pool

RECURRENT = (sl.LIFRecurrent, sl.IAFRecurrent, sl.ALIFRecurrent)
OVERWRITTEN = (*RECURRENT, sl.ALIF)
SQUEEZING = (sl.LIFSqueeze, sl.IAFSqueeze, sl.ExpLeakSqueeze, ALIFSqueeze)


def leaky(layer: Layer) -> None:
    """Convert LIF and IAF, and their recurrent and squeezing variants: i = alpha_syn * (i + in), v = alpha * v + i."""
    spiking = _spiking(layer)
    charging, synapse = _charging(layer)
    if synapse:
        layer.add(CubaLIF, **spiking, **charging, **synapse)
    elif isinstance(layer.module, sl.IAF | sl.IAFRecurrent):
        del charging["decay"]
        layer.add(IF, **spiking, **charging)
    else:
        layer.add(LIF, **spiking, **charging)


def adaptive(layer: Layer) -> None:
    """Convert ALIF, and its recurrent variant, whose threshold is b0 + adapt_scale * b, with b of the steps before."""
    module, spiking = layer.module, _spiking(layer, threshold=layer.module.b0)
    charging, synapse = _charging(layer)
    decay = module.alpha_adapt_calculated.detach()
    adapt = {"adapt_decay": decay, "adapt_spike": 1 - decay, "adapt_gain": module.adapt_scale}
    layer.refuse_unless(
        not (synapse and module.norm_input),
        "norm_input is True with tau_syn",
        "the current that it keeps is a normalised one",
    )
    layer.add(CubaALIF if synapse else ALIF, **spiking, **charging, **synapse, **adapt)


def _charging(layer: Layer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how a neuron charges, with its recurrent connection, and its synaptic current if it has one."""
    module = layer.module
    with torch.no_grad():
        alpha, alpha_syn = module.alpha_mem_calculated, module.alpha_syn_calculated
        fields: dict[str, Any] = {"decay": alpha} | ({"gain": 1 - alpha} if module.norm_input else {})
    if isinstance(module, RECURRENT):
        fields["recurrent"], fields["tensors"] = _recurrent(layer)
    return fields, {} if alpha_syn is None else {"synapse": Synapse.SUM_THEN_DECAY, "syn_decay": alpha_syn}


def leak(layer: Layer) -> None:
    """Convert ExpLeak, a readout: v = alpha * v + in."""
    module = layer.module
    layer.refuse_unless(module.min_v_mem is None, "min_v_mem is set", "a readout has no floor")
    alpha = module.alpha_mem_calculated.detach()
    gain = 1 - alpha if module.norm_input else 1.0
    layer.add(LI, decay=alpha, gain=gain)


def _spiking(layer: Layer, threshold: Any = None) -> dict[str, Any]:
    module = layer.module
    threshold = module.spike_threshold if threshold is None else threshold
    fields = {"threshold": threshold, "fire": _fire(layer)}
    if module.min_v_mem is not None:
        fields["floor"] = module.min_v_mem
    reset = module.reset_fn
    if isinstance(reset, activation.MembraneReset):
        layer.refuse_unless(
            reset.reset_value == 0,
            f"reset_fn adds {reset.reset_value}",
            "sinabs adds it to every neuron at every step, spike or not",
        )
        return fields | {"reset": Reset.VALUE}
    known = isinstance(reset, activation.MembraneSubtract)
    layer.refuse_unless(known, f"reset_fn is {reset}", "it is neither MembraneSubtract nor MembraneReset")
    own = getattr(reset, "subtract_value", None)
    same = own is None or (not isinstance(module, sl.ALIF) and bool((threshold == own).all()))
    layer.refuse_unless(same, f"reset_fn subtracts {own}", "a spike subtracts the threshold that the neuron fired at")
    return fields | {"reset": Reset.SUBTRACT}


def _fire(layer: Layer) -> Fire:
    spike = layer.module.spike_fn
    most = spike.max_num_spikes_per_bin if isinstance(spike, activation.MaxSpike) else None
    if spike is activation.SingleSpike or most == 1:
        return Fire.AT_THRESHOLD
    many = spike is activation.MultiSpike or isinstance(spike, activation.MaxSpike)
    layer.refuse_unless(
        many and most is None, f"spike_fn is {spike}", "a neuron fires once in a step, or without limit"
    )
    return Fire.MULTIPLE


def _recurrent(layer: Layer) -> tuple[Recurrent | None, dict[str, Any]]:
    connection = layer.module.rec_connect
    flat = (
        [part for part in connection if type(part) is not nn.Flatten] if isinstance(connection, nn.Sequential) else []
    )
    return layer.recurrent(flat[0] if len(flat) == 1 else connection, bias_at_start=False)


def run(module: nn.Module, steps: Tensor) -> ModuleRun:
    """Run a module from rest; sinabs' neurons take (batch, time, *shape)."""
    if type(module) in (sl.FlattenTime, sl.UnflattenTime):
        return ModuleRun(steps)
    if not isinstance(module, sl.StatefulLayer):
        return folded(module, steps)
    kinds = (*RECURRENT, sl.ExpLeak, sl.IAF, sl.LIF, sl.ALIF)
    kind = next((kind for kind in kinds if isinstance(module, kind)), type(module))
    forward = kind.forward  # a squeezing one reshapes around it
    recorded, module.record_states = module.record_states, True
    module.init_state_with_shape((steps.shape[1], *steps.shape[2:]))
    output = forward(module, steps.transpose(0, 1)).transpose(0, 1)
    # A recurrent or adaptive layer records the dictionary of a step, which the next step writes to before it is read.
    membrane = None if isinstance(module, OVERWRITTEN) else module.recordings["v_mem"].transpose(0, 1)
    module.record_states = recorded
    module.reset_states()
    return ModuleRun(output, membrane)


def takes(module: nn.Module) -> TimeAxes | None:
    """Return the leading axes of a module with a state; a squeezing one has time in the axis of the batch."""
    if not isinstance(module, sl.StatefulLayer):
        return None
    return TimeAxes.MERGED if isinstance(module, SQUEEZING) else TimeAxes.BATCH_FIRST


def unwrap(module: nn.Module) -> nn.Module:
    """Return the spiking model that a sinabs Network holds."""
    plain = type(module) is Network and not changes(module, alone=True)
    return module.get_submodule("spiking_model") if plain else module


FRAMEWORK = Framework(
    name="sinabs",
    rule="fires at the threshold, as often in a step as it fits; resets at once; a floor where min_v_mem is set",
    containers=frozenset({nn.Sequential, sl.Repeat}),
    rules={
        **MODULES,
        sl.SumPool2d: sum_pool,
        **dict.fromkeys((sl.FlattenTime, sl.UnflattenTime), nothing),
        **dict.fromkeys((sl.IAF, sl.IAFSqueeze, sl.IAFRecurrent, sl.LIF, sl.LIFSqueeze, sl.LIFRecurrent), leaky),
        **dict.fromkeys((sl.ALIF, ALIFSqueeze, sl.ALIFRecurrent), adaptive),
        **dict.fromkeys((sl.ExpLeak, sl.ExpLeakSqueeze), leak),
    },
    run=run,
    takes=takes,
    unwrap=unwrap,
)
