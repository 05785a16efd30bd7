"""The loss and the gradients that a step should give, by each rule: plain autograd, as slow as it is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contestants.base import SLOPE, Stage, TrainingJob
from benchmarks.contestants.torch_stack import Library, TorchTraining, layers, recurrent, training
from benchmarks.training.base import Outcome, Rule
from spikeserve.models.spec.network import FloatArray, Network


def expected(job: TrainingJob, rule: Rule) -> Outcome:
    """Return the loss and the gradients that a step on the job's batch has by a rule."""
    found: TorchTraining = training(job, Library(lambda stage, own, _: neurons(stage, own, rule)))
    return Outcome(found.step(found.load(job.inputs.steps, job.targets)), found.gradients())


def neurons(stage: Stage, own: nn.Linear | None, rule: Rule) -> Callable[[Tensor], Tensor]:
    """Return a stage's neurons over currents (time, batch, *shape)."""
    threshold = stage.threshold

    def run(currents: Tensor) -> Tensor:
        membrane, raster = torch.zeros_like(currents[0]), []
        spikes = torch.zeros_like(membrane)
        for current in currents:
            # Floating-point sums in the order of the libraries that have the rule, so that all round alike.
            if rule.late_spike:
                spikes = fire(membrane - threshold)
            reset = threshold * (spikes.detach() if rule.detached else spikes)
            if rule.late_reset:
                charged = stage.decay * membrane + current
                charged = charged if own is None else charged + own(spikes)
                membrane = charged - reset
            else:
                membrane = stage.decay * membrane + (current if own is None else current + own(spikes))
            if not rule.late_spike:
                spikes = fire(membrane - threshold)
            if not rule.late_reset:
                membrane = membrane - threshold * (spikes.detach() if rule.detached else spikes)
            raster.append(spikes)
        return torch.stack(raster)

    return run


@torch.no_grad()
def rasters(network: Network, steps: FloatArray, rule: Rule) -> Iterator[Tensor]:
    """Yield the spikes of each layer of neurons, (time_steps, batch, *shape), for inputs of such a shape."""
    spikes = torch.from_numpy(steps)
    for stage, connect in layers(network):
        flat = connect(spikes.flatten(0, 1))
        spikes = neurons(stage, recurrent(stage), rule)(flat.view(*spikes.shape[:2], *flat.shape[1:]))
        yield spikes


def fire(above: Tensor) -> Tensor:
    """Return 1 where the membrane is at or above its threshold, with the fast sigmoid's derivative."""
    soft = above / (1 + SLOPE * above.abs())
    return (above >= 0).to(above.dtype) + (soft - soft.detach())


def difference(found: Mapping[str, FloatArray], wanted: Mapping[str, FloatArray]) -> float:
    """Return the largest relative difference of a tensor's gradient: the norm of the difference over the norm."""
    if found.keys() != wanted.keys():
        raise ValueError(f"the gradients are of {', '.join(found)}, expected {', '.join(wanted)}")
    return max(float(np.linalg.norm(found[name] - wanted[name]) / np.linalg.norm(wanted[name])) for name in wanted)
