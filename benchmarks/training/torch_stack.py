"""What the PyTorch libraries share: each connection is one product over time × batch, and only neurons loop over time.

That is each library at its best, with the optimiser as one fused kernel. Nothing but the last layer's spikes is kept by
us; what autograd keeps is up to the library.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (its usual name)

from benchmarks.contestants.base import Skipped, Stage
from benchmarks.contestants.torch_stack import layers, recurrent
from benchmarks.training.base import Job, Targets
from spikeserve.models.engines.base import Counts
from spikeserve.models.spec.network import FloatArray, Network

Step = TypeVar("Step", bound=Callable[..., Any])


class Wrap(Protocol):
    """What neurons put around a function that takes one step: nothing, or torch.compile."""

    def __call__(self, step: Step, /) -> Step:
        """Return a function that computes the same."""


# Takes a stage, its recurrent connection and what to put around a step; returns the stage's neurons from rest: currents
# (time, batch, *shape) -> spikes.
Neurons: TypeAlias = Callable[[Stage, nn.Linear | None, Wrap], Callable[[Tensor], Tensor]]

# torch.compile unrolls a loop over time: 25 steps of two layers took two minutes, and 100 were not done in fifteen. A
# longer loop is left to Python, and one step of it compiled.
MOST_UNROLLED = 30


class Batch(NamedTuple):
    """Spikes as the library's time axis wants them, and targets (batch,)."""

    steps: Tensor
    targets: Tensor


class TorchTraining:
    """A network under a fused AdamW, from a function that returns the last layer's spikes.

    `parameters` have the names of the network's tensors. Where a library scales its input, a parameter is so many
    `times` the network's tensor; its gradient is then given as the tensor's, and learned at as many times the rate.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
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
        loss = F.cross_entropy(self._forward(batch.steps).sum(self._time_axis), batch.targets)
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
        counts: Counts = self._forward(batch.steps).sum(self._time_axis).to(torch.int64).numpy()
        return counts


def prepare(
    job: Job,
    neurons: Neurons,
    network: Network | None = None,
    *,
    batch_first: bool = False,
    times: Mapping[str, float] | None = None,
) -> TorchTraining:
    """Return a library's training; `batch_first` gives its neurons (batch, time, *shape) and takes that back."""
    if job.is_compiled and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise Skipped("torch.compile needs a C++ compiler, and none is on PATH")
    unrolls = job.inputs.time_steps <= MOST_UNROLLED
    parameters: dict[str, nn.Parameter] = {}
    stack = []
    for stage, connect in layers(network or job.network):
        own = recurrent(stage)
        for (node, _), module in zip(stage.connections, connect.children(), strict=True):
            parameters |= {f"{node.name}.{name}": each for name, each in module.named_parameters()}
        if own is not None:
            parameters |= {f"{stage.neuron.name}.recurrent.{name}": each for name, each in own.named_parameters()}
        stack.append((connect, neurons(stage, own, compiled if job.is_compiled and not unrolls else as_it_is)))
    for kept in parameters.values():
        kept.requires_grad = True

    def forward(spikes: Tensor) -> Tensor:
        for connect, fire in stack:
            flat = connect(spikes.flatten(0, 1))
            spikes = fire(flat.view(*spikes.shape[:2], *flat.shape[1:]))
        return spikes

    run = compiled(forward) if job.is_compiled and unrolls else forward
    return TorchTraining(run, parameters, job.learning_rate, time_axis=int(batch_first), times=times)


def compiled(step: Step) -> Step:
    """Return a function under torch.compile."""
    return torch.compile(step, dynamic=False)  # type: ignore[return-value]


def as_it_is(step: Step) -> Step:
    """Return the function."""
    return step
