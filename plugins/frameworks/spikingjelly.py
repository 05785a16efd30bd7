"""SpikingJelly: what its neurons compute, as nodes.

A neuron fires at its threshold and resets at once: by subtraction where v_reset is None, else to v_reset, which is
also where a LIF rests and where every neuron but the Simple ones starts.

Before 2.0.0 a membrane without decay_input whose v_reset is 0 or None decays by one product, which is the same number
but for its rounding; from 0.0.0.0.14 on that holds no longer of a LIFNode that resets to 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import base, functional, neuron
from spikingjelly.activation_based import layer as layers
from torch import Tensor, nn

from spikeserve.models.spec import Readout
from spikeserve.models.spec.nodes import IF, LI, LIF, RF, CubaLIF, Delay, I, Recurrent
from spikeserve.models.spec.rules import Charge, Fire, Reset
from spikeserve.plugins.frameworks.framework import Framework, Layer, Rule, TimeAxes, folded, is_hard, stepped
from spikeserve.plugins.frameworks.function_modules import batch_norm, by_step, temporal
from spikeserve.plugins.frameworks.nouns import ModuleRun
from spikeserve.plugins.frameworks.torch import MODULES
from spikeserve.training.importers import connections
from spikeserve.training.importers.builder import Draft

# PyTorch's layers that SpikingJelly wraps under the same name; the rules read the same fields.
WRAPPED = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Flatten, nn.Upsample),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.MaxPool1d, nn.MaxPool2d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout, nn.Dropout2d),
)
NEVER = 2.0**127  # a threshold that no membrane reaches, in place of an infinite one
NON_SPIKING: Any = getattr(neuron, "NonSpikingBaseNode", ())  # which 0.0.0.0.14 has not
DECODERS = {
    "max-mem": Readout.MAX_MEMBRANE,
    "mean-mem": Readout.MEAN_MEMBRANE,
    "last_mem": Readout.LAST_MEMBRANE,
    None: None,
}


def integrate(layer: Layer) -> None:
    """Convert IFNode, SimpleIFNode, and HalfThresholdIFNode, whose reset value of v is half its threshold: v + x."""
    layer.add(IF, **_spiking(layer))


def quadratic(layer: Layer) -> None:
    """Convert QIFNode: v + (x + a0 * (v - v_rest) * (v - v_c)) / tau."""
    module = layer.module
    square = {"curvature": module.a0, "critical": module.v_c, "leak": module.v_rest}
    layer.add(LIF, charge=Charge.QUADRATIC, tau=module.tau, **square, **_spiking(layer))


def exponential(layer: Layer) -> None:
    """Convert EIFNode: v + (x + v_rest - v + delta_T * exp((v - theta_rh) / delta_T)) / tau."""
    module = layer.module
    growth = {"sharpness": module.delta_T, "critical": module.theta_rh, "leak": module.v_rest}
    layer.add(LIF, charge=Charge.EXPONENTIAL_INPUT_FIRST, tau=module.tau, **growth, **_spiking(layer))


def resonating(layer: Layer) -> None:
    """Convert RAFNode, which turns u + iv by omega * dt, shrinks it by exp(b * dt), and adds x to u."""
    module = layer.module
    angle = module.omega * module.dt
    turn: dict[str, Any] = {"decay": math.exp(module.b * module.dt), "cosine": math.cos(angle), "sine": math.sin(angle)}
    layer.add(RF, **turn, **_spiking(layer))


def leaky(layer: Layer) -> None:
    """Convert LIFNode and SimpleLIFNode: v + (x - (v - v_reset)) / tau, or without decay_input x added whole."""
    layer.add(LIF, tau=layer.module.tau, **_leaking(layer), **_spiking(layer))


def parametric(layer: Layer) -> None:
    """Convert ParametricLIFNode: as LIFNode, but times the sigmoid of a weight in place of divided by tau."""
    layer.add(LIF, rate=layer.module.w.sigmoid(), **_leaking(layer), **_spiking(layer))


def current_based(layer: Layer) -> None:
    """Convert CUBALIFNode: c * c_decay + x, then v * v_decay + c."""
    module = layer.module
    layer.add(CubaLIF, decay=module.v_decay, syn_decay=module.c_decay, **_spiking(layer))


def integrating(layer: Layer) -> None:
    """Convert NonSpikingIFNode, a readout."""
    layer.add(I)
    _decoded(layer)


def leaking(layer: Layer) -> None:
    """Convert NonSpikingLIFNode, a readout: v + (x - v) / tau."""
    layer.add(LI, charge=Charge.RELAX, tau=layer.module.tau)
    _decoded(layer)


def filtering(layer: Layer) -> None:
    """Convert SynapseFilter, which does not fire: i - (1 - x) * i / tau + x."""
    module = layer.module
    rate = module.w.sigmoid() if module.learnable else 1.0 / module.tau
    layer.add(LI, charge=Charge.FILTER, rate=rate, start=_start(layer, "out_i"))


def delayed(layer: Layer) -> None:
    """Convert Delay: what arrives, so many steps later."""
    layer.builder.add(Draft(layer.name, Delay, {"delay": np.array(layer.module.delay_steps)}))


def recurrent(layer: Layer) -> None:
    """Convert LinearRecurrentContainer: its Linear takes the input beside the neurons' output of the step before."""
    module = layer.module
    parts = _parts(module.sub_module)
    if FRAMEWORK.kind(parts[0]) not in (nn.Linear, layers.Linear):
        parts.insert(0, None)
    inner, neurons = parts[0], parts[1:]
    if len(neurons) != 1 or FRAMEWORK.kind(neurons[0]) not in SPIKING:
        layer.refuse("sub_module", "it is neither a spiking neuron nor a Linear and a spiking neuron")
        return
    whole, bias = layer.weights(module.rc)
    size = module.rc.out_features
    weight, back = whole[:, :size], whole[:, size:]
    layer.builder.add(connections.linear(f"{layer.name}_input", weight, bias))
    if inner is not None:
        inner_weight, inner_bias = layer.weights(inner)
        layer.builder.add(connections.linear(f"{layer.name}_linear", inner_weight, inner_bias))
        back = (inner_weight.astype(np.float64) @ back.astype(np.float64)).astype(np.float32)
    _add_recurrent(layer, neurons[0], back)


def recurrent_one_to_one(layer: Layer) -> None:
    """Convert ElementWiseRecurrentContainer where it adds the neurons' output of the step before to the input."""
    module = layer.module
    (neuron_module, *others) = _parts(module.sub_module)
    if others or FRAMEWORK.kind(neuron_module) not in SPIKING:
        layer.refuse("sub_module", "it is no spiking neuron")
        return
    first, second = torch.rand(2, 64)
    adds = torch.equal(module.element_wise_function(first, second), first + second)
    layer.refuse_unless(adds, "element_wise_function", "it is not the sum")
    recurrent, tensors = layer.one_to_one(1.0)
    if adds and recurrent is not None:
        _add_recurrent(layer, neuron_module, tensors["recurrent.weight"])


def _parts(module: nn.Module) -> list[Any]:
    return [*module] if isinstance(module, nn.Sequential) else [module]


def _add_recurrent(layer: Layer, neurons: nn.Module, weight: Any) -> None:
    """Append neurons that hear themselves by these weights."""
    builder = layer.builder
    FRAMEWORK.rules[FRAMEWORK.kind(neurons) or type(neurons)](replace(layer, module=neurons))
    made: Any = builder.nodes[-1]
    fields = {name: getattr(made, name) for name in type(made).model_fields}
    builder.nodes[-1] = type(made)(**fields | {"recurrent": Recurrent()})
    builder.tensors[f"{made.name}.recurrent.weight"] = weight


def _decoded(layer: Layer) -> None:
    decode = layer.module.decode
    layer.refuse_unless(decode in DECODERS, f"decode is '{decode}'", "no readout takes the largest absolute value")
    layer.findings.readout = DECODERS.get(decode)


def _leaking(layer: Layer) -> dict[str, Any]:
    module = layer.module
    layer.refuse_unless(
        module.decay_input or not module.v_reset or isinstance(module, neuron.BaseNode),
        f"v_reset is {module.v_reset} without decay_input",
        "its first step is computed in float64, and all others in float32",
    )
    return {
        "charge": Charge.RELAX if module.decay_input else Charge.LEAK_THEN_ADD,
        "leak": 0.0 if module.v_reset is None else module.v_reset,
    }


def _spiking(layer: Layer) -> dict[str, Any]:
    module = layer.module
    layer.refuse_unless(
        is_hard(module.surrogate_function, fires_at_zero=True), "surrogate_function", "it is not the hard threshold"
    )
    layer.refuse_unless(
        getattr(module, "_neuron_precision", None) is None, "its precision is set", "membranes are float32"
    )
    fields = {"threshold": min(module.v_threshold, NEVER), "fire": Fire.AT_THRESHOLD, "start": _start(layer, "v")}
    if module.v_reset is None:
        return fields | {"reset": Reset.SUBTRACT}
    return fields | {"reset": Reset.VALUE, "reset_value": module.v_reset}


def _start(layer: Layer, name: str) -> float:
    """Return the value that a module's state begins with, which `set_reset_value` may have changed."""
    value = layer.module._memories_rv[name]
    number = isinstance(value, int | float)
    layer.refuse_unless(
        number, f"its reset value of {name} is a {type(value).__name__}", "expected a number, which fits any batch"
    )
    return float(value) if number else 0.0


def run(module: nn.Module, steps: Tensor) -> ModuleRun:
    """Run a module from rest, step by step or at once, as its step_mode says."""
    if isinstance(module, NON_SPIKING):
        decode, module.decode = module.decode, None
        membrane = torch.stack(module(steps))
        module.decode = decode
        return ModuleRun(membrane, membrane)
    if not isinstance(module, base.MemoryModule):
        return ModuleRun(module(steps)) if getattr(module, "step_mode", "s") == "m" else folded(module, steps)
    functional.reset_net(module)
    if module.step_mode == "m":
        stored, module.store_v_seq = getattr(module, "store_v_seq", False), True
        result = ModuleRun(module(steps), getattr(module, "v_seq", None))
        module.store_v_seq = stored
    else:

        def step(current: Tensor) -> tuple[Tensor, Tensor]:
            output = module(current)
            return output, _membrane(module, output)

        result = stepped(step, steps)
    functional.reset_net(module)
    return result


def _membrane(module: nn.Module, output: Tensor) -> Tensor:
    """Return the membrane of what has just run, which is what a filter gives."""
    if isinstance(module, CONTAINERS):
        module = _parts(module.sub_module)[-1]
    membrane: Tensor = getattr(module, "v", output)
    return membrane


def takes(module: nn.Module) -> TimeAxes | None:
    """Return the leading axes of a module with a state or factors for each step, as its step_mode says."""
    if isinstance(module, TEMPORAL):
        return TimeAxes.TIME_FIRST
    if not isinstance(module, base.MemoryModule) or isinstance(module, nn.Dropout | layers.Dropout):
        return None
    return TimeAxes.TIME_FIRST if module.step_mode == "m" else TimeAxes.STEP


def named(package: Any, rules: Mapping[str, Rule]) -> dict[type[nn.Module], Rule]:
    """Return rules by the classes that they are for, without those that this release of SpikingJelly has not yet."""
    return {getattr(package, name): rule for name, rule in rules.items() if hasattr(package, name)}


NEURONS: Mapping[str, Rule] = {
    **dict.fromkeys(("IFNode", "SimpleIFNode", "HalfThresholdIFNode"), integrate),
    **dict.fromkeys(("LIFNode", "OTTTLIFNode", "SLTTLIFNode", "SimpleLIFNode"), leaky),
    "ParametricLIFNode": parametric,
    "CUBALIFNode": current_based,
    "QIFNode": quadratic,
    "EIFNode": exponential,
    "RAFNode": resonating,
}
SPIKING: Mapping[type[nn.Module], Rule] = MappingProxyType(named(neuron, NEURONS))
LAYERS: Mapping[str, Rule] = {
    **dict.fromkeys(("ThresholdDependentBatchNorm1d", "ThresholdDependentBatchNorm2d"), batch_norm),
    **dict.fromkeys(("TemporalEffectiveBatchNorm1d", "TemporalEffectiveBatchNorm2d"), temporal),
    **dict.fromkeys(("BatchNormThroughTime1d", "BatchNormThroughTime2d"), by_step),
    "SynapseFilter": filtering,
    "Delay": delayed,
    "LinearRecurrentContainer": recurrent,
    "ElementWiseRecurrentContainer": recurrent_one_to_one,
}
TEMPORAL = tuple(kind for kind, rule in named(layers, LAYERS).items() if rule is temporal)
CONTAINERS = (layers.LinearRecurrentContainer, layers.ElementWiseRecurrentContainer)

FRAMEWORK = Framework(
    name="spikingjelly",
    rule="fires at the threshold; resets at once, by subtraction where v_reset is None",
    containers=frozenset(
        {nn.Sequential, layers.MultiStepContainer, layers.SeqToANNContainer, layers.StepModeContainer}
    ),
    rules={
        **MODULES,
        **named(layers, {kind.__name__: rule for kind, rule in MODULES.items() if kind in WRAPPED}),
        **SPIKING,
        **named(layers, LAYERS),
        **named(neuron, {"NonSpikingIFNode": integrating, "NonSpikingLIFNode": leaking}),
    },
    run=run,
    takes=takes,
    membranes=("v", "v_seq"),
)
