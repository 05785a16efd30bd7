"""What `convert` loses of a trained network's accuracy by time steps, beside the converters of SpikingJelly and sinabs.

Networks of ReLUs are trained here, with several seeds, and each converter gets the same ones and the same training
samples. The figures are points of accuracy on the test samples that a converted network lost, as a mean over seeds.

    python -m benchmarks.conversion digits-mlp digits-cnn --seeds 5
    python -m benchmarks.conversion mnist-cnn mnist-vgg --steps 4 8 16

SpikingJelly runs its usual recipe, and its best for few steps: thresholds of each channel, and half a threshold as the
start; also its local threshold balancing (Bu et al., 2024). sinabs runs as it comes, where a neuron may fire several
times in a step, which is no event of one bit any more, and with single spikes.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import machine
from benchmarks.tables import markdown
from spikeserve.models.engines import available, create
from spikeserve.models.spec import Coding
from spikeserve.plugins.frameworks.conversion.calibration import SAMPLES, calibrated
from spikeserve.plugins.frameworks.conversion.source import read_source
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.config import DataConfig
from spikeserve.training.data.datasets import Split, load
from spikeserve.training.report.evaluate import evaluate

STEPS = (4, 8, 16, 32, 64)
BATCH = 50


def mlp() -> nn.Module:
    """Return two hidden layers for digits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def block(given: int, made: int) -> list[nn.Module]:
    """Return a convolution with its batch norm."""
    return [nn.Conv2d(given, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]


def small_cnn() -> nn.Module:
    """Return two convolutions and average pools for digits."""
    pooled = (*block(1, 16), nn.AvgPool2d(2), *block(16, 32), nn.AvgPool2d(2))
    return nn.Sequential(*pooled, nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def cnn() -> nn.Module:
    """Return two convolutions without batch norms and maximum pools for MNIST."""
    pooled = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    pooled += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*pooled, nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))


def vgg() -> nn.Module:
    """Return six convolutions in the manner of VGG, with batch norms, for MNIST."""
    first = (*block(1, 16), *block(16, 16), nn.MaxPool2d(2))
    then = (*block(16, 32), *block(32, 32), nn.MaxPool2d(2), *block(32, 64), *block(64, 64), nn.AvgPool2d(7))
    return nn.Sequential(*first, *then, nn.Flatten(), nn.Linear(64, 10))


@dataclass(frozen=True)
class Task:
    """A data set, a network for it and epochs of training."""

    dataset: str
    network: Callable[[], nn.Module]
    epochs: int


TASKS: Mapping[str, Task] = {
    "digits-mlp": Task("digits", mlp, 40),
    "digits-cnn": Task("digits", small_cnn, 40),
    "mnist-cnn": Task("mnist-5000", cnn, 12),
    "mnist-vgg": Task("mnist-5000", vgg, 12),
}


def tensors(split: Split, highest: float) -> tuple[Tensor, Tensor]:
    """Return samples from 0 to 1 as images, and labels."""
    samples = torch.from_numpy(split.samples.astype(np.float32) / highest)
    return (samples if samples.ndim == 4 else samples.unsqueeze(1)), torch.from_numpy(split.labels)


def trained(task: Task, samples: Tensor, labels: Tensor, seed: int) -> nn.Module:
    """Train a network by AdamW under a one-cycle schedule."""
    torch.manual_seed(seed)
    network, count = task.network(), len(samples)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-4)
    batches = -(-count // 64) * task.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=batches)
    for _ in range(task.epochs):
        for chosen in torch.split(torch.randperm(count), 64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(samples[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return network.eval()


Accuracy = Callable[[int], float]  # of so many time steps


def right(answers: list[Tensor], labels: Tensor) -> float:
    """Return the share of samples whose highest answer is their label."""
    return float((torch.cat(answers).argmax(1) == labels).float().mean())


def ours(network: nn.Module, samples: Tensor, test: tuple[Tensor, Tensor], steps: int) -> float:
    """Convert for so many steps, and run the default engine."""
    source = read_source(network, FrameworkOptions(input_shape=tuple(samples.shape[1:]), time_steps=1))
    spiking = calibrated(source, samples.numpy(), steps)
    return evaluate(create(available()[0], spiking), Split(test[0].numpy(), test[1].numpy())).accuracy


@torch.inference_mode()
def spikingjelly(recipe: Callable[[Any], Any], network: nn.Module, samples: Tensor, test: Any, steps: int) -> float:
    """Convert by a recipe of SpikingJelly, and add up the answers of all steps."""
    from spikingjelly.activation_based import ann2snn, functional

    calibration = [(part, part) for part in torch.split(samples[:: -(-len(samples) // SAMPLES)], 64)]
    spiking = ann2snn.Converter(recipe(calibration)).convert(deepcopy(network)).eval()
    answers = []
    for part in torch.split(test[0], BATCH):
        functional.reset_net(spiking)
        answers.append(torch.stack([spiking(part) for _ in range(steps)]).sum(0))
    return right(answers, test[1])


@torch.inference_mode()
def sinabs(spike: str, network: nn.Module, _: Tensor, test: Any, steps: int) -> float:
    """Convert by sinabs, which needs no samples, and add up the answers of all steps."""
    from sinabs import activation, from_torch

    answers = []
    for part in torch.split(test[0], BATCH):
        made = from_torch.from_model(
            deepcopy(network), spike_fn=getattr(activation, spike), num_timesteps=steps, batch_size=len(part)
        )
        repeated = part.unsqueeze(1).expand(-1, steps, *part.shape[1:]).flatten(0, 1)
        answers.append(made.spiking_model.eval()(repeated).unflatten(0, (len(part), steps)).sum(1))
    return right(answers, test[1])


def balancing(samples: Any) -> Any:
    """Return SpikingJelly's local threshold balancing."""
    from spikingjelly.activation_based.ann2snn.recipes import LocalThresholdBalancingRecipe

    return LocalThresholdBalancingRecipe(samples)


def by_rate(samples: Any, **options: Any) -> Any:
    """Return SpikingJelly's recipe of rates."""
    from spikingjelly.activation_based.ann2snn.recipes import RateCodingRecipe

    return RateCodingRecipe(samples, **options)


BEST = {"mode": "99.9%", "channel_wise": True, "half_threshold": True}
CONVERTERS: Mapping[str, Callable[[nn.Module, Tensor, Any, int], float]] = {
    "`convert`": ours,
    "SpikingJelly, as it comes": partial(spikingjelly, by_rate),
    "SpikingJelly, best options": partial(spikingjelly, partial(by_rate, **BEST)),
    "SpikingJelly, local threshold balancing": partial(spikingjelly, balancing),
    "sinabs, as it comes: several spikes a step": partial(sinabs, "MultiSpike"),
    "sinabs, single spikes": partial(sinabs, "SingleSpike"),
}


def main() -> None:
    """Read the command line, run, and print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=tuple(TASKS), metavar="network", help=", ".join(TASKS))
    parser.add_argument("--seeds", type=int, default=1, help="networks that are trained (default: 1)")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, help="time steps (default: 4 8 16 32 64)")
    parser.add_argument("--test", type=int, help="test samples (default: all)")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of the other libraries
    print(machine(["torch", "spikingjelly", "sinabs"]))
    for name in given.tasks:
        task = TASKS[name]
        data = load(DataConfig(dataset=task.dataset), Coding.DIRECT)
        highest = float(np.max(data.declared.high))
        training, test = tensors(data.training, highest), tensors(data.test[: given.test], highest)
        sources = [trained(task, *training, seed) for seed in range(given.seeds)]
        with torch.inference_mode():
            before = [right([source(test[0])], test[1]) for source in sources]
        rows = []
        for converter, convert in CONVERTERS.items():
            pairs = list(zip(before, sources, strict=True))
            lost = [
                100 * np.mean([was - convert(each, training[0], test, steps) for was, each in pairs])
                for steps in given.steps
            ]
            rows.append([converter, *(f"{each + 0.0:.2f}" for each in np.round(lost, 2))])
        print(f"\n{name}: {100 * np.mean(before):.2f} % of {len(test[1])} test samples before, {given.seeds} seeds\n")
        print(markdown(["points lost", *(f"{steps} steps" for steps in given.steps)], rows), flush=True)


if __name__ == "__main__":
    main()
