"""The training loop: epochs of batches; after each epoch it validates, keeps the best weights and saves a checkpoint.

All random numbers of an epoch (order of samples, shifts, rate coding, dropout) come from the seed and the epoch's
number only, so that a resumed run gives the same result as one that was not interrupted. Each process draws those of
the whole batch, so that several processes give the same result as one.
"""

from __future__ import annotations

import math
import statistics
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec import Spec
from spikeserve.models.spec.network import Network
from spikeserve.training.config import Schedule, TrainingConfig
from spikeserve.training.data.augment import augment
from spikeserve.training.data.datasets import Dataset, Labels, Split
from spikeserve.training.fit.architecture import Architecture
from spikeserve.training.fit.batch_norm import BatchNorm, WholeBatch
from spikeserve.training.fit.checkpoint import Progress, load_tensors
from spikeserve.training.fit.devices import Devices, join
from spikeserve.training.fit.diagnostics import Diagnostics, at_start
from spikeserve.training.fit.initialise import SAMPLES, initialise
from spikeserve.training.fit.kernels import solve_kernels
from spikeserve.training.fit.layers import Delays, Neurons, SynapticDelays
from spikeserve.training.fit.losses import balancing_weights, class_scores, rate_penalty, readout_loss
from spikeserve.training.fit.network import Activity, TrainingNetwork, encoded, forward
from spikeserve.training.fit.surrogate import SurrogateThreshold
from spikeserve.training.report.epochs import CLIP_NORM, SILENT, Epoch, Watcher

EVALUATION_BATCH = 256
NORMALISED = 4096  # samples, at most, whose statistics batch norm is folded with
NEURON_RATE = 5.0  # the learning rate of neurons' parameters and delays, as a multiple of the weights'
RISE, FIRST, LAST = 0.3, 1 / 25, 1e-4  # of the schedule one_cycle


@dataclass(frozen=True)
class FitResult:
    """The result of fitting: the best network, the epochs, and whether it was interrupted."""

    network: Network
    epochs: list[Epoch]
    best: Epoch
    interrupted: bool


def fit(
    architecture: Architecture,
    data: Dataset,
    config: TrainingConfig,
    checkpoint: Path,
    *,
    resume: bool = False,
    watcher: Watcher = SILENT,
    devices: Devices | None = None,
) -> FitResult:
    """Fit a network's weights to the training split; return the network of the epoch that validated best.

    With fewer than ENOUGH validation samples that is the last epoch. Of random kernels the readout is solved instead.

    Ends after `epochs`, or after `patience` epochs without improvement, or cleanly on an interrupt. Without `devices`
    it joins those of torchrun. Each process returns the same; only the first writes the checkpoint. Raises
    BrokenGradientChain if no gradient can reach a weight, and InvalidConfig if there is no checkpoint to resume from.
    """
    devices = devices or join(config)
    watcher = watcher if devices.first else SILENT
    if config.network.kernels:
        network, epoch = solve_kernels(architecture, data, config.seed, devices.device)
        watcher.epoch(epoch)
        return FitResult(network, [epoch], epoch, interrupted=False)
    module, served, optimiser, progress = start(architecture, data, config, devices, checkpoint if resume else None)
    diagnostics = Diagnostics(data)
    interrupted = False
    try:
        while _goes_on(progress, config):
            epoch = _one_epoch(module, served, optimiser, data, config, len(progress.epochs), watcher, devices)
            first = () if progress.epochs else tuple(at_start(config, data))
            epoch = replace(epoch, warnings=first + diagnostics.of(epoch))
            progress.epochs.append(epoch)
            progress.weights, progress.average = deepcopy(module.state_dict()), deepcopy(served.state_dict())
            progress.optimiser = optimiser.state_dict()
            if epoch.better_than(progress.best):
                progress.best, progress.best_weights = epoch, deepcopy(served.module.state_dict())
            if devices.first:
                progress.save(checkpoint)
            watcher.epoch(epoch)
    except KeyboardInterrupt:
        interrupted = True
        if progress.best is None:
            raise
    assert progress.best is not None  # noqa: S101  (at least one epoch has ended)
    module.load_state_dict(progress.best_weights)
    renormalise(module, data.training)
    return FitResult(module.network(), progress.epochs, progress.best, interrupted)


def start(
    architecture: Architecture, data: Dataset, config: TrainingConfig, devices: Devices, checkpoint: Path | None = None
) -> tuple[TrainingNetwork, AveragedModel, torch.optim.Optimizer, Progress]:
    """Return the start of a run, fresh from the seed, or as in a checkpoint.

    That is the network that is trained, the average of its weights, which each of the optimiser's steps updates, the
    optimiser, and the progress.
    """
    settings = config.optimisation
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        module = TrainingNetwork(architecture).to(devices.device)
        if checkpoint is None:
            temporal = config.network.temporal
            first = data.training[: SAMPLES if temporal else settings.batch_size]
            initialise(module, first.samples, first.lengths, temporal=temporal)
    optimiser = torch.optim.AdamW(_groups(module, config.weight_decay), lr=settings.learning_rate, fused=True)
    progress = Progress.load(checkpoint) if checkpoint else Progress(module.state_dict(), optimiser.state_dict())
    if checkpoint:
        progress.restore(module, optimiser, checkpoint)
    devices.synchronise(module)
    updates = settings.updates(len(data.training))
    served = averaged(module, min(settings.average, updates / (updates + 10)))  # of the last tenth of a short run
    if progress.average:
        load_tensors(served, progress.average, f"run: '{checkpoint}', average")
    optimiser.register_step_post_hook(lambda *_: served.update_parameters(module))
    return module, served, optimiser, progress


def _groups(module: TrainingNetwork, weight_decay: float) -> list[dict[str, Any]]:
    """Return the weights, which decay, and the neurons' learned parameters, which do not."""
    learned = {id(value) for layer in module.layers if isinstance(layer, Neurons) for value in layer.learned.values()}
    delays = (layer for layer in module.modules() if isinstance(layer, Delays | SynapticDelays))
    learned |= {id(value) for layer in delays for value in layer.parameters()}
    weights = [value for value in module.parameters() if id(value) not in learned]
    others = [value for value in module.parameters() if id(value) in learned]
    groups = [{"params": weights, "weight_decay": weight_decay, "factor": 1.0}]
    return groups + ([{"params": others, "weight_decay": 0.0, "factor": NEURON_RATE}] if others else [])


def averaged(module: TrainingNetwork, keep: float) -> AveragedModel:
    """Return the moving average of a network's weights; each update keeps the share `keep`, in [0, 1), of it.

    The weights jump about with each batch, and their average lies nearer to the middle (Polyak & Juditsky, 1992).

    Each of its tensors has the shape of the network's. The first update takes the weights as they are, and the n-th
    keeps at most n / (n + 9), so that a long average does not remember the random start.
    """

    def average(before: Any, now: Any, updates: Tensor | int) -> None:
        n = int(updates) + 1
        get_ema_multi_avg_fn(min(keep, n / (n + 9)))(before, now, updates)  # type: ignore[no-untyped-call]

    return AveragedModel(module, multi_avg_fn=average)


def learning_rate_share(schedule: Schedule, progress: float) -> float:
    """Return the share of the highest learning rate at a progress from 0, the start of the run, to 1, its end.

    cosine     half a cosine from 1 down to 0
    one_cycle  up from 1/25 as half a cosine in the first 30 %, then down to 1/10000 likewise (Smith & Topin, 2018)
    constant   1
    """
    match schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.COSINE:
            return _between(1.0, 0.0, progress)
        case Schedule.ONE_CYCLE:
            if progress < RISE:
                return _between(FIRST, 1.0, progress / RISE)
            return _between(1.0, LAST, (progress - RISE) / (1 - RISE))


def _between(start: float, end: float, progress: float) -> float:
    """Return a value on half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def _goes_on(progress: Progress, config: TrainingConfig) -> bool:
    settings, done = config.optimisation, len(progress.epochs)
    since = progress.best.number if progress.best else done - 1
    return done < settings.epochs and done - 1 - since < settings.patience


def _one_epoch(
    module: TrainingNetwork,
    served: AveragedModel,
    optimiser: torch.optim.Optimizer,
    data: Dataset,
    config: TrainingConfig,
    number: int,
    watcher: Watcher,
    devices: Devices,
) -> Epoch:
    """Train on every sample once, and validate."""
    began = time.perf_counter()
    settings = config.optimisation
    threshold = SurrogateThreshold(settings.surrogate, settings.slope, detach_reset=not config.network.temporal)
    how: dict[str, Any] = {"label_smoothing": settings.label_smoothing}
    if settings.class_weights == "balanced":
        weights = balancing_weights(data.training.labels, len(data.class_names))
        how["class_weights"] = weights.to(devices.device)
    parameters = list(module.parameters())
    rng = np.random.default_rng([config.seed, number])
    module.train()
    synapses = [layer for layer in module.modules() if isinstance(layer, SynapticDelays)]
    order = rng.permutation(len(data.training))
    loss_sum, correct = 0.0, 0.0
    norms: list[float] = []
    for begin in range(0, len(order), settings.batch_size):
        end = min(begin + settings.batch_size, len(order))
        batch = data.training[order[begin:end]].cut()
        progress = (number + begin / len(order)) / settings.epochs
        rate = settings.learning_rate * learning_rate_share(settings.schedule, progress)
        for delays in synapses:
            delays.narrow(progress)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        samples = augment(
            batch.samples, config.augment, rng, declared=data.declared, coding=module.spec.coding, lengths=batch.lengths
        )
        seeds = rng.integers(0, 2**63, len(batch)).tolist()
        share = devices.share(len(batch))
        with devices.autocast():
            whole = WholeBatch(seeds[0], len(batch), share.rows, share.copies)
            steps, time_steps = encoded(module, samples[share.rows], seeds[share.rows])
            passed = module(steps, time_steps, threshold, whole, batch[share.rows].lengths)
        targets = torch.from_numpy(batch.labels[share.rows]).to(devices.device)
        scored = readout_loss(passed.output, targets, module.spec.readout, lengths=passed.lengths, **how)
        loss = devices.mean(scored, share.weight)
        if settings.rate_penalty and passed.rasters:
            rates = [devices.mean(each, share.weight) for each in passed.rates.values()]
            loss = loss + settings.rate_penalty * rate_penalty(rates, *config.firing_rates)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        devices.sum_gradients(parameters)
        norms.append(float(clip_grad_norm_(parameters, CLIP_NORM)))
        optimiser.step()
        loss_sum += float(loss.detach()) * len(batch)
        correct += _correct(passed, batch.labels[share.rows], module.spec) / share.copies
        watcher.batch(number, end / len(order), rate, float(loss.detach()))
    held_out = len(data.validation)
    split = data.validation if held_out else data.training[:EVALUATION_BATCH]
    share = devices.share(len(split))
    own_loss, accuracy, rates_of = validate(cast(TrainingNetwork, served.module), split[share.rows])
    return Epoch(
        number=number,
        training_loss=loss_sum / len(order),
        training_accuracy=devices.total(correct) / len(order),
        validation_loss=devices.total(own_loss * share.weight) if held_out else math.nan,
        validation_accuracy=devices.total(accuracy * share.weight) if held_out else math.nan,
        firing_rates={name: devices.total(rate * share.weight) for name, rate in rates_of.items()},
        seconds=time.perf_counter() - began,
        gradient_norm=statistics.median(norms),
        gradient_norms=tuple(norms),
        validation_samples=held_out,
    )


def _correct(passed: Activity, labels: Labels, spec: Spec) -> int:
    scores = class_scores(passed.output.detach(), spec.readout, passed.lengths)
    return int((scores.argmax(dim=1).cpu().numpy() == labels).sum())


@torch.no_grad()
def renormalise(module: TrainingNetwork, split: Split) -> None:
    """Set the mean and variance of each batch norm to those of a split's samples as they are served, in place.

    Those of the last batches were of varied samples, some of which lacked spikes, so that served networks fired more.
    Of more than NORMALISED samples, every second, third, … is taken, so that the end of a run is not long.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the mean over all batches
    chosen = np.arange(0, len(split) if norms else 0, -(-len(split) // NORMALISED))
    for start in range(0, len(chosen), EVALUATION_BATCH):
        batch = split[chosen[start : start + EVALUATION_BATCH]].cut()
        forward(module, batch.samples, HardThreshold(), lengths=batch.lengths)
    module.eval()


@torch.inference_mode()
def validate(module: TrainingNetwork, split: Split) -> tuple[float, float, dict[str, float]]:
    """Run a split as in serving, with the plain threshold; return its loss, accuracy and firing rates."""
    module.eval()
    loss, correct = 0.0, 0
    rates: dict[str, float] = {}
    for start in range(0, len(split), EVALUATION_BATCH):
        batch = split[start : start + EVALUATION_BATCH].cut()
        activity = forward(module, batch.samples, HardThreshold(), lengths=batch.lengths)
        targets = torch.from_numpy(batch.labels).to(activity.output.device)
        share = len(batch) / len(split)
        scored = readout_loss(activity.output, targets, module.spec.readout, lengths=activity.lengths)
        loss += float(scored) * share
        correct += _correct(activity, batch.labels, module.spec)
        for name, rate in activity.firing_rates.items():
            rates[name] = rates.get(name, 0.0) + rate * share
    return loss, correct / len(split), rates
