"""This project's own modules, `training.library`: each already is one of the spec's nodes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeserve.models.spec.nodes import ProgramBase
from spikeserve.models.version import VERSION
from spikeserve.training.fit import custom_neurons, modules
from spikeserve.training.importers.builder import Draft
from spikeserve.training.importers.frameworks.framework import Framework, Run, Takes, folded, merged
from spikeserve.training.importers.frameworks.layer import Layer
from spikeserve.training.importers.frameworks.torch_modules import MODULES


def neuron(layer: Layer) -> None:
    """Convert a layer of neurons, with its learned parameters as they are now."""
    node, tensors = layer.module.neurons.written()
    given = {name: getattr(node, name) for name in type(node).model_fields if name not in ("name", "inputs", "type")}
    fields = {name: value for name, value in given.items() if value is not None}
    authors = node.parameters if isinstance(node, ProgramBase) else {}
    own = {name: tensors.pop(name, value) for name, value in authors.items()}
    parameters = {name: values for name, values in tensors.items() if name in fields}
    others = {name: values for name, values in tensors.items() if name not in fields}
    layer.builder.add(Draft(layer.name, type(node), fields | parameters, others, own))


def delay(layer: Layer) -> None:
    """Convert delays, rounded to whole steps."""
    node, tensors = layer.module.delays.written()
    layer.builder.add(Draft(layer.name, type(node), {"delay": node.delay}, tensors))


def run(module: nn.Module, steps: Tensor) -> Run:
    """Run a module from rest; a readout's output is its membrane."""
    if not isinstance(module, modules.OverTime):
        return folded(module, steps)
    with torch.no_grad():
        output = module.time_first(module(module.time_first(steps)))
    return Run(output)


def takes(module: nn.Module) -> Takes | None:
    """Return what a module with a state takes: all steps."""
    if not isinstance(module, modules.OverTime):
        return None
    return Takes.BATCH_FIRST if module.batch_first else Takes.TIME_FIRST


FRAMEWORK = Framework(
    name="spikeserve",
    rule="computes the nodes of the spec",
    containers=frozenset({nn.Sequential, modules.PerStep}),
    rules=merged(
        MODULES,
        {
            modules.IF: neuron,
            modules.LIF: neuron,
            modules.CubaLIF: neuron,
            modules.ALIF: neuron,
            modules.CubaALIF: neuron,
            modules.LI: neuron,
            modules.CubaLI: neuron,
            custom_neurons.Neuron: neuron,
            custom_neurons.Integrator: neuron,
            modules.Delay: delay,
        },
    ),
    run=run,
    takes=takes,
    installed=VERSION,
)
