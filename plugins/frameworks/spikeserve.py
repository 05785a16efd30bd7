"""This project's own modules, `training.library`: each is a node of the spec, and `publish` makes a bundle of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import require_name
from spikeserve.models.engines import create
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.nodes import ProgramBase
from spikeserve.models.spec.parameters import show
from spikeserve.models.version import VERSION
from spikeserve.plugins.frameworks.commands import FrameworkImporter
from spikeserve.plugins.frameworks.convert import convert
from spikeserve.plugins.frameworks.framework import Framework, Layer, TimeAxes, folded
from spikeserve.plugins.frameworks.nouns import ModuleRun
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.plugins.frameworks.torch import MODULES
from spikeserve.training.data.datasets import Split
from spikeserve.training.errors import InvalidData
from spikeserve.training.fit import modules
from spikeserve.training.fit.exact import RoundedNetwork, round_to_grid
from spikeserve.training.importers.builder import Draft
from spikeserve.training.publish.publish import publish_trained
from spikeserve.training.report.card import markdown, parity_table
from spikeserve.training.report.evaluate import Evaluation, evaluate
from spikeserve.training.report.parity import Parity


def neuron(layer: Layer) -> None:
    """Convert a layer of neurons, with its learned parameters as they are now."""
    node, tensors = layer.module.neurons.written()
    settings = {name: getattr(node, name) for name in type(node).model_fields if name not in ("name", "inputs", "type")}
    fields = {name: value for name, value in settings.items() if value is not None}
    authors = node.parameters if isinstance(node, ProgramBase) else {}
    own = {name: tensors.pop(name, value) for name, value in authors.items()}
    parameters = {name: values for name, values in tensors.items() if name in fields}
    others = {name: values for name, values in tensors.items() if name not in fields}
    layer.builder.add(Draft(layer.name, type(node), fields | parameters, others, own))


def delay(layer: Layer) -> None:
    """Convert delays, rounded to whole steps."""
    node, tensors = layer.module.delays.written()
    layer.builder.add(Draft(layer.name, type(node), {"delay": node.delay}, tensors))


def run(module: nn.Module, steps: Tensor) -> ModuleRun:
    """Run a module from rest; a readout's output is its membrane."""
    if not isinstance(module, modules.OverTime):
        return folded(module, steps)
    with torch.no_grad():
        output = module.time_first(module(module.time_first(steps)))
    return ModuleRun(output)


def takes(module: nn.Module) -> TimeAxes | None:
    """Return the leading axes of a module with a state, which takes all steps."""
    if not isinstance(module, modules.OverTime):
        return None
    return TimeAxes.BATCH_FIRST if module.batch_first else TimeAxes.TIME_FIRST


FRAMEWORK = Framework(
    name="spikeserve",
    rule="computes the nodes of the spec",
    containers=frozenset({nn.Sequential, modules.PerStep}),
    rules={
        **MODULES,
        **dict.fromkeys((modules.IF, modules.LIF, modules.CubaLIF, modules.ALIF, modules.CubaALIF), neuron),
        **dict.fromkeys((modules.AdLIF, modules.LI, modules.CubaLI), neuron),
        **dict.fromkeys((modules.Neuron, modules.Integrator), neuron),
        modules.Delay: delay,
    },
    run=run,
    takes=takes,
    installed=VERSION,
)


def publish(model: nn.Module, repository: str | Path, name: str, test: tuple[ArrayLike, ArrayLike], **said: Any) -> Any:
    """Publish a network, as `training.library.publish` says."""
    require_name(name)
    if not isinstance(test, tuple | list) or len(test) != 2:
        expected = "two arrays, (samples, labels); of a DataLoader [torch.cat(each) for each in zip(*loader)]"
        raise InvalidData(f"test: is a {type(test).__name__}, expected {expected}")
    coding, time_steps, readout = Coding(said["coding"]), said["time_steps"], said["readout"]
    samples, targets = np.asarray(test[0], np.float32), np.asarray(test[1], np.int64)
    sequences = coding is Coding.SPIKES
    steps = samples.shape[1] if sequences and samples.ndim > 2 else time_steps
    if steps is None or samples.ndim < (3 if sequences else 2) or targets.shape != samples.shape[:1]:
        raise InvalidData(
            f"test: samples have shape {show(samples.shape)}, labels {show(targets.shape)} and time_steps is "
            f"{time_steps}, expected (n, time_steps, …) and (n), or with another coding than 'spikes' (n, …), (n) and "
            "a number of time_steps"
        )
    options = FrameworkOptions(
        input_shape=samples.shape[2:] if sequences else samples.shape[1:],
        time_steps=steps,
        coding=coding,
        readout=None if readout is None else Readout(readout),
        labels=tuple(said["labels"]) or None,
        low=min(0.0, float(samples.min())),
        high=max(1.0, float(samples.max())),
    )
    rounded = round_to_grid(convert(model.eval(), FRAMEWORK, options).network)
    split = Split(samples, targets)
    evaluation = evaluate(create("torch", rounded.network), split)
    return publish_trained(
        rounded.network,
        repository_at(repository),
        name,
        split,
        lambda parity: _card(name, rounded, evaluation, parity),
        {"test_accuracy": evaluation.accuracy},
    )


def _card(name: str, rounded: RoundedNetwork, evaluation: Evaluation, parity: Sequence[Parity]) -> str:
    spec = rounded.network.spec
    return markdown(
        name,
        f"A spiking network that tells {spec.classes} classes apart, trained in a loop of its author's own: "
        f"{rounded.network.parameter_count} parameters, {spec.time_steps} time steps, {spec.coding} coding.",
        {
            "Input": f"{show(spec.input.shape)} values from {spec.input.low:g} to {spec.input.high:g}",
            "Classes": ", ".join(spec.labels),
            "Accuracy": f"{evaluation.accuracy:.2%} of the {len(evaluation.labels)} samples that it was published with",
            "Synaptic operations per sample": f"{evaluation.synaptic_operations.mean():.0f} on average",
            "Weights": "on a dyadic grid, where every sum is exact" if rounded.exact else "float32",
        },
        {"Agreement of the engines": parity_table(parity), "Limits": "It knows only what it was trained on."},
    )


class OwnImporter(FrameworkImporter):
    """Takes in networks of this project's modules, and publishes those that are trained in a loop of their author's."""

    publish = staticmethod(publish)


IMPORTER = OwnImporter("spikeserve")
