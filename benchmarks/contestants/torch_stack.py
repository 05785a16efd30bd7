"""What the PyTorch libraries share: each connection is one product over time × batch, and only neurons loop over time.

That is each library at its best; stepping the whole network through time, as their tutorials do, is slower. A first
layer whose input is the same at every step is computed once. In training the optimiser is one fused kernel, and nothing
but the last layer's spikes is kept by us; what autograd keeps is up to the library.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from benchmarks.contestants.base import Job, Run, Skipped, Stage, Targets, TrainingJob, scaled, stages
from spikeserve.models.engines.base import Counts
from spikeserve.models.engines.torch.connections import SumPool
from spikeserve.models.engines.torch.network import SpikingNetwork
from spikeserve.models.spec.network import FloatArray, Network

Step = TypeVar("Step", bound=Callable[..., Any])
Layer: TypeAlias = Callable[[Tensor], Tensor]  # currents (time, batch, *shape) -> spikes of the same shape, from rest

# torch.compile unrolls a loop over time: 25 steps of two layers took two minutes, and 100 were not done in fifteen. A
# longer loop is left to Python, and one step of it compiled.
MOST_UNROLLED = 30


class Wrap(Protocol):
    """What is put around a function: nothing, or torch.compile."""

    def __call__(self, step: Step, /) -> Step:
        """Return a function that computes the same."""


def as_it_is(step: Step) -> Step:
    """Return the function."""
    return step


def compiled(step: Step) -> Step:
    """Return a function under torch.compile."""
    return torch.compile(step, dynamic=False)  # type: ignore[return-value]


@dataclass(frozen=True)
class Setting:
    """Whether neurons are trained, with a surrogate gradient, and what they put around a function of one step."""

    trains: bool = False
    wrap: Wrap = as_it_is


@dataclass(frozen=True)
class Library:
    """A library's neurons: `neurons` takes a stage, its recurrent connection and a setting.

    `batch_first` says that they take and give (batch, time, *shape). Where a library scales its input, `factor` is what
    the weights that feed a stage are multiplied by. `connect` may compute a stage's connections in its own way.
    """

    neurons: Callable[[Stage, nn.Linear | None, Setting], Layer]
    batch_first: bool = False
    factor: Callable[[Stage], float] = lambda _: 1.0
    connect: Callable[[nn.Module], nn.Module] = lambda connections: connections


def stepwise(
    step: Callable[[Tensor, Any], tuple[Tensor, Any]],
    rest: Callable[[Tensor], Any] = torch.zeros_like,
    recurrent: nn.Linear | None = None,
) -> Layer:
    """Make a layer of a function that takes one step; `rest` makes the first state of a step's current."""

    def run(currents: Tensor) -> Tensor:
        spikes, state, raster = torch.zeros_like(currents[0]), rest(currents[0]), []
        for current in currents:
            spikes, state = step(current if recurrent is None else current + recurrent(spikes), state)
            raster.append(spikes)
        return torch.stack(raster)

    return run


def layers(network: Network) -> list[tuple[Stage, nn.Module]]:
    """Return each stage with its connections as a module over (samples, *shape), all in float32 as the libraries do."""
    module = SpikingNetwork.of(network).eval().requires_grad_(False).float()
    for pool in module.modules():
        if isinstance(pool, SumPool):
            pool.wide = False
    built = dict(zip((node.name for node in network.spec.nodes), module.layers, strict=True))
    return [(stage, nn.Sequential(*(built[node.name] for node, _ in stage.connections))) for stage in stages(network)]


def recurrent(stage: Stage) -> nn.Linear | None:
    """Return the connection from a stage's neurons to themselves, over (batch, neurons)."""
    if stage.recurrent is None:
        return None
    size = len(stage.recurrent)
    linear = nn.Linear(size, size, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.from_numpy(stage.recurrent.copy()))
    return linear


class Built(NamedTuple):
    """A network in a library: a function to the spike counts (batch, classes), and the parameters by tensor."""

    forward: Layer
    parameters: dict[str, nn.Parameter]
    times: dict[str, float]  # how many times the network's tensor a parameter is


def build(network: Network, time_steps: int, library: Library, setting: Setting) -> Built:
    """Build a network in a library; the input is (1 or time, batch, *shape), with the two axes as it wants them."""
    factors = [library.factor(stage) for stage in stages(network)]
    stack, parameters, times = [], dict[str, nn.Parameter](), dict[str, float]()
    for (stage, connect), factor in zip(layers(scaled(network, factors)), factors, strict=True):
        own = recurrent(stage)
        modules = {node.name: module for (node, _), module in zip(stage.connections, connect.children(), strict=True)}
        modules |= {} if own is None else {f"{stage.neuron.name}.recurrent": own}
        for name, module in modules.items():
            found = {f"{name}.{parameter}": each for parameter, each in module.named_parameters()}
            parameters |= found
            times |= dict.fromkeys(found, factor)
        stack.append((library.connect(connect), library.neurons(stage, own, setting)))
    axis = int(library.batch_first)

    def forward(spikes: Tensor) -> Tensor:
        for connect, fire in stack:
            flat = connect(spikes.flatten(0, 1))
            current = flat.view(*spikes.shape[:2], *flat.shape[1:])
            if current.shape[axis] != time_steps:
                shape = list(current.shape)
                shape[axis] = time_steps
                current = current.expand(shape)
            spikes = fire(current)
        return spikes.sum(axis)

    return Built(forward, parameters, times)


def inference(job: Job, library: Library, wrap: Wrap = as_it_is) -> Run:
    """Return a run of a library, with `wrap` around the whole network."""
    forward = wrap(build(job.network, job.inputs.time_steps, library, Setting()).forward)
    inputs = torch.from_numpy(job.inputs.steps).movedim(0, int(library.batch_first)).contiguous()

    @torch.inference_mode()
    def run() -> Counts:
        counts: Counts = forward(inputs).to(torch.int64).numpy()
        return counts

    return run


class Batch(NamedTuple):
    """Spikes as the library wants them, and targets (batch,)."""

    steps: Any
    targets: Tensor


class TorchTraining:
    """A network under a fused AdamW, from a function that returns the spike counts (batch, classes).

    `parameters` have the names of the network's tensors. Where a library scales its input, a parameter is so many
    `times` the network's tensor; its gradient is then given as the tensor's, and learned at as many times the rate.
    """

    def __init__(
        self,
        forward: Layer,
        parameters: Mapping[str, nn.Parameter],
        learning_rate: float,
        *,
        time_axis: int = 0,
        times: Mapping[str, float] | None = None,
    ) -> None:
        self._forward = forward
        self._parameters = dict(parameters)
        self._time_axis = time_axis
        self._times = {name: (times or {}).get(name, 1.0) for name in parameters}
        groups = [{"params": [p], "lr": learning_rate * self._times[name]} for name, p in parameters.items()]
        self._optimiser = torch.optim.AdamW(groups, lr=learning_rate, weight_decay=0.0, fused=True)

    def load(self, steps: FloatArray, targets: Targets) -> Batch:
        """Return a batch of spikes (time_steps, batch, *shape), laid out along the library's time axis."""
        return Batch(torch.from_numpy(steps).movedim(0, self._time_axis).contiguous(), torch.from_numpy(targets))

    def step(self, batch: Batch) -> float:
        """Take a training step and return its loss."""
        self._optimiser.zero_grad()
        loss = F.cross_entropy(self._forward(batch.steps), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return float(loss.detach())

    def gradients(self) -> dict[str, FloatArray]:
        """Return the gradients of the last step."""
        found = {}
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None  # noqa: S101  (a step was taken)
            found[name] = (parameter.grad * self._times[name]).numpy().copy()
        return found

    @torch.no_grad()
    def counts(self, batch: Batch) -> Counts:
        """Return the spike counts (batch, classes)."""
        counts: Counts = self._forward(batch.steps).to(torch.int64).numpy()
        return counts


def training(job: TrainingJob, library: Library) -> TorchTraining:
    """Return a library's training."""
    need_compiler(asked=job.is_compiled)
    unrolls = job.inputs.time_steps <= MOST_UNROLLED
    setting = Setting(trains=True, wrap=compiled if job.is_compiled and not unrolls else as_it_is)
    built = build(job.network, job.inputs.time_steps, library, setting)
    for parameter in built.parameters.values():
        parameter.requires_grad = True
    forward = compiled(built.forward) if job.is_compiled and unrolls else built.forward
    return TorchTraining(
        forward, built.parameters, job.learning_rate, time_axis=int(library.batch_first), times=built.times
    )


def need_compiler(*, asked: bool = True) -> None:
    """Raise Skipped where torch.compile is asked for and there is no C++ compiler."""
    if asked and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise Skipped("torch.compile needs a C++ compiler, and none is on PATH")
