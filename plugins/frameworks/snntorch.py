"""snnTorch: what its neurons compute, as nodes.

A neuron fires above its threshold. A reset comes one step late, from the membrane of the step before: by subtraction,
not multiplied by beta; Leaky sets the old membrane to zero before it decays, all others set what was charged to zero
and so lose that step's input. `reset_delay=False` corrects this within the step, but does nothing on RSynaptic in
1.0.0, which reads its arguments in place of its state.
"""

from __future__ import annotations

from typing import Any

import snntorch as snn
import torch
from snntorch._neurons import rleaky, rsynaptic
from torch import Tensor, nn

from spikeserve.models.spec.nodes import LIF, Alpha, CubaLIF, Recurrent, Scale
from spikeserve.models.spec.rules import Fire, Joins, Reset, ResetTiming
from spikeserve.plugins.frameworks.framework import Framework, Layer, TimeAxes, folded, is_hard
from spikeserve.plugins.frameworks.nouns import ModuleRun
from spikeserve.plugins.frameworks.torch import MODULES
from spikeserve.training.importers.builder import Draft

KNOWN_VERSION = "1.0.0"  # of which RSynaptic's reset_delay is known to do nothing

ONE_TO_ONE = (rleaky.RecurrentOneToOne, rsynaptic.RecurrentOneToOne)
LATE = {True: ResetTiming.NEXT_STEP, False: ResetTiming.CORRECTED}
LATE_CHARGED = {True: ResetTiming.NEXT_STEP_CHARGED, False: ResetTiming.CORRECTED_CHARGED}
RESETS = {"subtract": Reset.SUBTRACT, "zero": Reset.VALUE, "none": Reset.NONE}
STATE_FUNCTIONS = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}


def leaky(layer: Layer) -> None:
    """Convert Leaky and Synaptic, and RLeaky and RSynaptic, which hear their own spikes of the step before."""
    module, kind = layer.module, FRAMEWORK.kind(layer.module)
    fields: dict[str, Any] = {"decay": module.beta.clamp(0, 1)}
    tensors: dict[str, Any] = {}
    if kind in (snn.Synaptic, snn.RSynaptic):
        fields["syn_decay"] = module.alpha.clamp(0, 1)
    if kind in (snn.RLeaky, snn.RSynaptic):
        fields["recurrent"], tensors = _recurrent(layer)
    if kind is snn.RSynaptic and not module.reset_delay:
        _require_known_delay(layer)
    kept = LATE if kind is snn.Leaky else LATE_CHARGED
    fields |= _spiking(layer, delay=module.reset_delay or kind is snn.RSynaptic, zero=kept)
    layer.add(CubaLIF if "syn_decay" in fields else LIF, tensors, **fields)
    _grade(layer)


def alpha(layer: Layer) -> None:
    """Convert Alpha: two synaptic currents, and tau_alpha times their sum as the membrane."""
    module = layer.module
    with torch.no_grad():
        exc_decay, inh_decay = module.alpha.clamp(0, 1), module.beta.clamp(0, 1)
        gain = torch.log(exc_decay) / (torch.log(inh_decay) - torch.log(exc_decay)) + 1
    fields = _spiking(layer, delay=True, zero=LATE_CHARGED)
    fields = {name: value for name, value in fields.items() if not name.startswith("reset")}
    fields |= {"exc_decay": exc_decay, "inh_decay": inh_decay, "gain": gain}
    layer.add(Alpha, reset=RESETS[_reset(module)], **fields)


def _grade(layer: Layer) -> None:
    """Append a Scale where a spike is not 1 but graded_spikes_factor; the reset knows of no factor."""
    factor = layer.module.graded_spikes_factor
    if bool((factor == 1).all()):
        return
    hears = isinstance(layer.module, snn.RLeaky | snn.RSynaptic)
    layer.refuse_unless(
        not hears, f"graded_spikes_factor is {factor.tolist()}", "a recurrent neuron hears its own spikes as 1"
    )
    layer.refuse_unless(bool((factor != 0).all()), "graded_spikes_factor is 0", "a spike is not nothing")
    scale = layer.array("graded_spikes_factor", factor)
    layer.builder.add(Draft(f"{layer.name}_graded", Scale, {"scale": scale}, {}))


def _require_known_delay(layer: Layer) -> None:
    """Refuse a reset_delay of False of RSynaptic in a release that may do anything, or cannot run it."""
    about = "reset_delay is False"
    layer.refuse_unless(
        FRAMEWORK.version == KNOWN_VERSION,
        about,
        f"it does nothing in snntorch {KNOWN_VERSION}, but {FRAMEWORK.version} is installed",
    )
    layer.refuse_unless(
        not layer.module.init_hidden, f"{about} where it keeps its state", f"snntorch {FRAMEWORK.version} cannot run it"
    )


def lapicque(layer: Layer) -> None:
    """Convert Lapicque: ((in * R) * (1 / (R C))) * time_step + (1 - time_step / (R C)) * mem.

    That is one product with one gain where R and time_step are powers of two, as they are by default.
    """
    module = layer.module
    for field in ("R", "time_step"):
        value = getattr(module, field).float()
        exact = bool((torch.frexp(value).mantissa == 0.5).all())
        layer.refuse_unless(exact, f"{field} is {value.tolist()}", "only a power of two keeps its order of rounding")
    with torch.no_grad():
        share = 1 / (module.R * module.C)
        gain, decay = module.R * share * module.time_step, 1 - (module.time_step / (module.R * module.C))
    layer.add(LIF, decay=decay.float(), gain=gain.float(), **_spiking(layer, delay=True, zero=LATE_CHARGED))
    _grade(layer)


def _spiking(layer: Layer, *, delay: bool, zero: dict[bool, ResetTiming]) -> dict[str, Any]:
    """Return the fields that all neurons share, and refuse what none of ours does."""
    module = layer.module
    layer.refuse_unless(not module.inhibition, "inhibition is True", "no node lets only the largest membrane fire")
    layer.refuse_unless(not module.state_quant, "state_quant is set", "no node quantises its membrane")
    layer.refuse_unless(
        is_hard(module.spike_grad, fires_at_zero=False), "spike_grad", "it is not the hard threshold when it runs"
    )
    built = _reset(module)
    loaded = list(snn.SpikingNeuron.reset_dict)[int(module.reset_mechanism_val)]
    layer.refuse_unless(
        built == loaded, f"reset_mechanism is '{built}', but a state_dict brought '{loaded}'", "only one can hold"
    )
    fields = {"threshold": module.threshold, "fire": Fire.ABOVE_THRESHOLD}
    if built == "none":
        return fields | {"reset": Reset.NONE}
    if built == "zero":
        return fields | {"reset": Reset.VALUE, "reset_timing": zero[delay]}
    return fields | {"reset": Reset.SUBTRACT, "reset_timing": LATE[delay]}


def _reset(module: Any) -> str:
    """Return the reset mechanism that a neuron was built with."""
    return STATE_FUNCTIONS[module.state_function.__name__]


def _recurrent(layer: Layer) -> tuple[Recurrent | None, dict[str, Any]]:
    connection = layer.module.recurrent
    if type(connection) in ONE_TO_ONE:
        return layer.one_to_one(connection.V.detach().numpy(), Joins.CHARGE)
    padded = getattr(connection, "padding_mode", "zeros")
    known = type(connection) in (nn.Linear, nn.Conv2d) and padded == "zeros"
    layer.refuse_unless(known, f"recurrent is {connection}", "expected the connection that its class makes")
    return layer.recurrent(connection, Joins.CHARGE) if known else (None, {})


def run(module: nn.Module, steps: Tensor) -> ModuleRun:
    """Run a module from rest; a neuron's own states are kept by it, whether hidden or handed on."""
    if not isinstance(module, snn.SpikingNeuron):
        return folded(module, steps)
    module.reset_mem()
    rest = torch.zeros_like(steps[0])
    states = [rest, rest, rest] if isinstance(module, snn.RSynaptic) and not module.init_hidden else []
    spikes, membranes = [], []
    for current in steps:
        out = module(current, *states)
        states = [out[0], *out[1:]] if states else states
        spikes.append(out[0] if isinstance(out, tuple) else out)
        membranes.append(module.mem)
    module.reset_mem()
    output = torch.stack(spikes)
    return ModuleRun(output, torch.stack(membranes), output / module.graded_spikes_factor)


FRAMEWORK = Framework(
    name="snntorch",
    rule="fires above the threshold; resets a step late unless reset_delay is off",
    containers=frozenset({nn.Sequential}),
    rules={
        **MODULES,
        **dict.fromkeys((snn.Leaky, snn.Synaptic, snn.RLeaky, snn.RSynaptic), leaky),
        snn.Lapicque: lapicque,
        snn.Alpha: alpha,
    },
    run=run,
    takes=lambda module: TimeAxes.STEP if isinstance(module, snn.SpikingNeuron) else None,
)
