"""Make the cases: small networks of each framework, run by the framework's own modules.

Weights and inputs are multiples of 1/16 with few bits, so that every sum of them is exact in any order: what differs is
a rule, and no rounding.

    python -m conformance make
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conformance.case import CASES, DT, Case, events
from spikeserve.models.bundle import Contents, GoldenSamples
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.errors import SpikeserveError
from spikeserve.models.spec import Coding
from spikeserve.models.spec.narrow import found_bits
from spikeserve.plugins.frameworks.compare import Outputs, run_framework
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.plugins.nir.export import to_graph
from spikeserve.plugins.nir.file import write

STEPS, DENSITY = 30, 0.3
FLAT, IMAGE = (9,), (2, 6, 6)
HIDDEN, CLASSES = 14, 4
GAINS = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0, 16.0)
LEAST, MOST = 0.04, 0.6  # shares of steps in which a neuron of each layer fires


@dataclass(frozen=True)
class Network:
    """A network of one framework: what it is about, its modules, and the shape of its input."""

    framework: str
    name: str
    about: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = FLAT
    narrow: bool = False  # whether the bundle stores its weights in as few bits as hold them


def dense(neurons: Callable[[], nn.Module], last: Callable[[], nn.Module] | None = None) -> Callable[[], nn.Module]:
    """Make two Linear layers with neurons behind each."""
    return lambda: nn.Sequential(nn.Linear(FLAT[0], HIDDEN), neurons(), nn.Linear(HIDDEN, CLASSES), (last or neurons)())


def image(neurons: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Make a convolution, an average pool and a Linear layer, with neurons behind convolution and Linear."""
    return lambda: nn.Sequential(
        *(nn.Conv2d(2, 5, 3, padding=1), neurons(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(45, CLASSES), neurons())
    )


def strided(neurons: Callable[[], nn.Module], pool: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """Make a convolution of two groups with a stride, a dilated one, a pool and a Linear layer, each with neurons."""
    return lambda: nn.Sequential(
        *(nn.Conv2d(2, 6, 3, stride=2, padding=2, groups=2), neurons(), nn.Conv2d(6, 4, 2, dilation=2), neurons()),
        *(pool(), nn.Flatten(), nn.Linear(4, CLASSES), neurons()),
    )


class Delayed(nn.Module):
    """Two layers of synapses that each have a delay of its own, by DCLS, with neurons that take all steps behind."""

    def __init__(self, neurons: Callable[[], nn.Module]) -> None:
        from DCLS.construct.modules import Dcls1d

        super().__init__()
        sizes = ((FLAT[0], HIDDEN), (HIDDEN, CLASSES))
        layers = [Dcls1d(*size, kernel_count=1, dilated_kernel_size=6, version="max") for size in sizes]
        for layer in layers:
            nn.init.zeros_(layer.SIG)
            layer.P.data = torch.randint(-3, 3, layer.P.shape, generator=torch.Generator().manual_seed(4)).float()
        self.synapses, self.neurons = nn.ModuleList(layers), nn.ModuleList(neurons() for _ in sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Take and give (time, batch, units)."""
        for layer, fires in zip(self.synapses, self.neurons, strict=True):
            x = fires(layer(nn.functional.pad(x.permute(1, 2, 0), (5, 0))).permute(2, 0, 1))
        return x


def snntorch() -> Iterator[Network]:
    """Yield networks of snnTorch's neurons."""
    import snntorch as snn

    def leaky(**options: object) -> Callable[[], nn.Module]:
        return lambda: snn.Leaky(beta=0.9, init_hidden=True, **options)

    yield Network("snntorch", "leaky", "reset by subtraction, a step late", dense(leaky()))
    yield Network("snntorch", "leaky-narrow", "weights of few bits", dense(leaky()), narrow=True)
    yield Network("snntorch", "leaky-zero", "reset to zero, a step late", dense(leaky(reset_mechanism="zero")))
    yield Network("snntorch", "leaky-none", "no reset", dense(leaky(reset_mechanism="none")))
    yield Network("snntorch", "leaky-at-once", "reset in the same step", dense(leaky(reset_delay=False)))
    yield Network("snntorch", "leaky-convolution", "a convolution and an average pool", image(leaky()), IMAGE)
    yield Network(
        "snntorch", "synaptic", "a synaptic current", dense(lambda: snn.Synaptic(0.75, 0.9, init_hidden=True))
    )
    yield Network("snntorch", "alpha", "two synaptic currents", dense(lambda: snn.Alpha(0.9, 0.8, init_hidden=True)))
    yield Network(
        "snntorch", "lapicque", "a circuit of R and C", dense(lambda: snn.Lapicque(R=1, C=8, init_hidden=True))
    )
    yield Network(
        *("snntorch", "recurrent", "every neuron hears every other"),
        dense(lambda: snn.RLeaky(0.9, linear_features=HIDDEN, init_hidden=True), leaky()),
    )
    yield Network(
        *("snntorch", "recurrent-synaptic", "recurrent, with a synaptic current"),
        dense(lambda: snn.RSynaptic(0.75, 0.9, linear_features=HIDDEN, init_hidden=True), leaky()),
    )
    yield Network("snntorch", "leaky-exact", "membranes that meet the threshold exactly", dense(lambda: halving(snn)))
    yield Network(
        "snntorch",
        "leaky-strided",
        "stride, groups, dilation, a maximum",
        strided(leaky(), lambda: nn.MaxPool2d(2)),
        IMAGE,
    )


def halving(snn: Any) -> nn.Module:
    """Make neurons whose membranes halve, so that they stay multiples of a power of two."""
    return snn.Leaky(beta=0.5, init_hidden=True)


def spikingjelly() -> Iterator[Network]:
    """Yield networks of SpikingJelly's neurons."""
    from spikingjelly.activation_based import layer, neuron

    name = "spikingjelly"
    yield Network(name, "if", "no leak, reset to zero", dense(neuron.IFNode))
    yield Network(name, "if-soft", "reset by subtraction", dense(lambda: neuron.IFNode(v_reset=None)))
    yield Network(name, "lif", "the input decays too", dense(neuron.LIFNode))
    yield Network(name, "lif-plain-input", "the input does not decay", dense(lambda: neuron.LIFNode(decay_input=False)))
    yield Network(name, "lif-soft", "reset by subtraction", dense(lambda: neuron.LIFNode(v_reset=None)))
    yield Network(name, "lif-convolution", "a convolution and an average pool", image(neuron.LIFNode), IMAGE)
    yield Network(name, "parametric", "a learned time constant", dense(neuron.ParametricLIFNode))
    yield Network(name, "quadratic", "quadratic integrate-and-fire", dense(neuron.QIFNode))
    yield Network(name, "exponential", "exponential integrate-and-fire", dense(neuron.EIFNode))
    yield Network(name, "current-based", "a synaptic current", dense(lambda: neuron.CUBALIFNode(0.5, 0.75)))
    yield Network(name, "resonate", "resonate-and-fire", dense(neuron.RAFNode))
    yield Network(
        *(name, "filtered", "synapses that filter spikes"),
        dense(lambda: nn.Sequential(neuron.IFNode(), layer.SynapseFilter(4.0)), neuron.IFNode),
    )
    yield Network(
        *(name, "recurrent", "every neuron hears every other"),
        dense(
            lambda: layer.LinearRecurrentContainer(neuron.LIFNode(), in_features=HIDDEN, out_features=HIDDEN),
            neuron.LIFNode,
        ),
    )
    yield Network(
        name,
        "delays",
        "each synapse has a delay of its own (DCLS)",
        lambda: Delayed(lambda: neuron.IFNode(step_mode="m")),
    )


def norse() -> Iterator[Network]:
    """Yield networks of Norse's neurons."""
    import norse.torch as norse_torch

    def stack(cell: Callable[[], nn.Module], last: Callable[[], nn.Module] | None = None) -> Callable[[], nn.Module]:
        return lambda: norse_torch.SequentialState(*dense(cell, last)().children())

    yield Network("norse", "lif", "current and membrane by Euler's method", stack(norse_torch.LIFCell))
    yield Network("norse", "lif-box", "no synaptic current", stack(norse_torch.LIFBoxCell))
    yield Network("norse", "readout", "ends in a membrane", stack(norse_torch.LIFCell, norse_torch.LICell))
    yield Network("norse", "adaptive", "a threshold that rises", stack(lambda: norse_torch.LSNNCell()))
    yield Network("norse", "refractory", "silent for some steps", stack(norse_torch.LIFRefracCell))
    yield Network("norse", "exponential", "exponential integrate-and-fire", stack(norse_torch.LIFExCell))
    yield Network("norse", "adaptive-exponential", "a current that adapts", stack(norse_torch.LIFAdExCell))


def sinabs() -> Iterator[Network]:
    """Yield networks of sinabs's neurons."""
    import sinabs.layers as layers
    from sinabs.activation import MembraneReset, MultiSpike, SingleSpike

    yield Network("sinabs", "iaf", "several spikes a step", dense(layers.IAF))
    yield Network("sinabs", "iaf-once", "one spike a step", dense(lambda: layers.IAF(spike_fn=SingleSpike)))
    yield Network(
        "sinabs", "iaf-zero", "reset to zero", dense(lambda: layers.IAF(spike_fn=SingleSpike, reset_fn=MembraneReset()))
    )
    yield Network("sinabs", "iaf-floor", "a least membrane", dense(lambda: layers.IAF(min_v_mem=-0.5)))
    yield Network("sinabs", "lif", "a leak, the input scaled", dense(lambda: layers.LIF(tau_mem=10.0)))
    yield Network("sinabs", "lif-current", "a synaptic current", dense(lambda: layers.LIF(tau_mem=10.0, tau_syn=5.0)))
    yield Network(
        "sinabs", "lif-plain-input", "the input not scaled", dense(lambda: layers.LIF(tau_mem=10.0, norm_input=False))
    )
    yield Network(
        *("sinabs", "adaptive", "a threshold that rises"),
        dense(lambda: layers.ALIF(tau_mem=10.0, tau_adapt=20.0, spike_fn=MultiSpike)),
    )
    yield Network("sinabs", "iaf-convolution", "a convolution and an average pool", image(layers.IAF), IMAGE)
    yield Network(
        *("sinabs", "iaf-strided", "stride, groups, dilation, a sum"),
        strided(layers.IAF, lambda: layers.SumPool2d(2)),
        IMAGE,
    )
    yield Network(
        *("sinabs", "recurrent", "every neuron hears every other"),
        dense(lambda: layers.LIFRecurrent(tau_mem=10.0, rec_connect=nn.Linear(HIDDEN, HIDDEN)), layers.IAF),
    )


class AdLIF(nn.Module):
    """The SE-adLIF neuron of Baronig et al. (2025), by its equations."""

    def __init__(self) -> None:
        super().__init__()
        self.u = self.w = torch.tensor(0.0)

    def reset(self) -> None:
        """Begin at rest."""
        self.u = self.w = torch.tensor(0.0)

    def forward(self, current: Tensor) -> Tensor:
        """Take a step and give the spikes, (batch, neurons)."""
        u = 0.75 * self.u + 0.25 * (current - self.w)
        spikes = (u >= 0.25).float()
        self.u = u * (1 - spikes)
        self.w = 0.875 * self.w + 0.125 * (0.5 * self.u + spikes)
        return spikes


def plain() -> Iterator[Network]:
    """Yield networks of neurons in plain PyTorch."""
    yield Network("torch", "adlif", "a current that follows the membrane (SE-adLIF)", dense(AdLIF))


def lively(network: nn.Module, gain: float) -> nn.Module:
    """Set weights and biases to multiples of 1/16 times a gain, and put the network in evaluation."""
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) or hasattr(module, "dilated_kernel_size"):
            for name, tensor in module.named_parameters():
                if name not in ("weight", "bias"):  # a delay, say
                    continue
                drawn = torch.randint(-9, 15, tensor.shape, generator=generator) / 16
                tensor.data = gain * (drawn if tensor.ndim > 1 else drawn / 4)
    return network.eval().requires_grad_(False)


def busy(network: Network, inputs: DenseInputs) -> tuple[ConvertedNetwork, Outputs]:
    """Give the network with the first gain at which every layer fires now and then, and what its modules gave."""
    framework = find(network.framework)
    options = FrameworkOptions(input_shape=network.shape, time_steps=STEPS, coding=Coding.SPIKES)
    for gain in GAINS:
        converted = convert(lively(network.make(), gain), framework, options)
        outputs = run_framework(converted, framework, inputs)
        fired = [outputs[converted.places[name]][0] for name in converted.network.spec.layers]
        if all(LEAST <= np.count_nonzero(raster) / raster.size <= MOST for raster in fired):
            return converted, outputs
    raise ValueError(f"{network.framework}-{network.name}: no gain of {GAINS} makes all of its layers fire")


def make(folder: Path = CASES) -> None:
    """Write every case, in place of those that are there."""
    shutil.rmtree(folder, ignore_errors=True)
    for framework in (snntorch, norse, sinabs, spikingjelly, plain):
        for network in framework():
            write_case(network, folder / f"{network.framework}-{network.name}")


def write_case(network: Network, folder: Path) -> None:
    """Run a network by its framework, and write what it did."""
    framework = find(network.framework)
    raster = (np.random.default_rng(5).random((STEPS, 1, *network.shape)) < DENSITY).astype(np.float32)
    inputs = DenseInputs(raster, STEPS)
    converted, outputs = busy(network, inputs)
    arrays: dict[str, Any] = events(raster.reshape(STEPS, -1))
    layers: dict[str, tuple[int, ...]] = {}
    for name, place in converted.places.items():
        output, membrane = outputs[place]
        layers[name] = output.shape[2:]
        fires = name in converted.network.spec.layers
        arrays |= events(output.reshape(STEPS, -1) if fires else np.zeros((STEPS, output[0].size)), f"{name}.")
        shown = membrane if fires else output
        if shown is not None:
            arrays[f"{name}.membrane"] = shown.reshape(STEPS, -1)
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "data.npz", **arrays)
    nir = ""
    try:
        write(folder / "graph.nir", to_graph(converted.network, DT))
    except SpikeserveError as error:
        nir = str(error)
    served = converted.network
    if network.narrow:
        served = type(served)(served.spec.with_weight_bits(found_bits(served)), served.tensors)
    result, _ = ReferenceEngine(served).run(inputs)
    golden = GoldenSamples(inputs, result.spike_counts, result.readout)
    (folder / "bundle").mkdir()
    contents = Contents(folder.name, served, golden, {}, f"# {folder.name}\n\n{network.about}\n")
    contents.write(folder / "bundle", 1)
    version = framework.version
    Case(folder.name, network.about, framework.name, version, network.shape, STEPS, layers, nir).write(folder)
