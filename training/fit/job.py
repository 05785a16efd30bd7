"""The training job, from data to run folder; it prints nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from spikeserve.models.engines import create
from spikeserve.models.engines.torch.engine import usable_device
from spikeserve.models.spec.network import Network
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.augment import check_augmentation
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.fit.architecture import Architecture, build_architecture
from spikeserve.training.fit.devices import Devices, join
from spikeserve.training.fit.diagnostics import at_end
from spikeserve.training.fit.exact import round_to_grid
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.loop import FitResult, fit
from spikeserve.training.report.epochs import Watcher
from spikeserve.training.report.evaluate import Evaluation, evaluate

TIME_STEPS = 8  # the default, unless the configuration or the data sets it


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its epochs, the rounded network, its evaluation on the test split, and what that warns of."""

    fitted: FitResult
    network: Network
    evaluation: Evaluation
    warnings: tuple[str, ...]


def architecture_for(config: TrainingConfig, data: Dataset) -> Architecture:
    """Return the network of a configuration for a data set; samples with a value for each step set the time steps."""
    steps = config.network.time_steps or TIME_STEPS
    if config.network.coding.per_step:
        steps = data.training.samples.shape[1]
    return build_architecture(config.network, data.declared, data.class_names, steps, data.dt)


def prepare(config: TrainingConfig) -> tuple[TrainingConfig, Dataset]:
    """Load the data, and return it behind the configuration with every field set.

    Random kernels are solved on all samples: none is held out for validation, unless the data or the user does.
    """
    unsaid = config.data.dataset == "arrays" and "coding" not in config.network.model_fields_set
    data = load(config.data, None if unsaid else config.network.coding)
    if data.coding is not None:
        network = config.network.model_copy(update={"coding": data.coding})
        config = config.model_copy(update={"network": network})
    settings = config.for_data(data.training.samples.shape)
    has_validation = "validation_share" in config.data.model_fields_set or "validation" in data.own_splits
    if not settings.network.kernels or has_validation:
        return settings, data
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"validation_share": 0.0})})
    return settings, replace(load(settings.data, settings.network.coding), read_as=data.read_as)


def check_start(config: TrainingConfig, data: Dataset) -> Architecture:
    """Return the network; raise what keeps a run from starting.

    That is a network that cannot be built for the data, augmentation that does not fit it, or a device that is not
    there. Nothing is made before: a run that cannot start leaves no folder.
    """
    architecture = architecture_for(config.for_data(data.training.samples.shape), data)
    check_augmentation(config.augment, data.declared, config.network.coding)
    usable_device(config.device)
    return architecture


def run_job(
    config: TrainingConfig,
    data: Dataset,
    folder: RunFolder,
    watcher: Watcher,
    *,
    resume: bool = False,
    devices: Devices | None = None,
) -> TrainedRun:
    """Fit, round the best weights to their grid, evaluate them once on the test split, and write the run's folder.

    Without `devices` it joins those of torchrun. Once the weights are fitted, the first process goes on
    alone and the others end. A run to resume that has not ended an epoch begins again.
    """
    config = config.for_data(data.training.samples.shape)
    resume = resume and folder.begun
    devices = devices or join(config)
    if devices.first:
        config.write(folder.path / "config.toml")
    architecture = architecture_for(config, data)
    fitted = fit(architecture, data, config, folder.checkpoint, resume=resume, watcher=watcher, devices=devices)
    if not devices.first:
        raise SystemExit(0)
    rounded = round_to_grid(fitted.network)
    network = rounded.network
    folder.save_network(network)
    evaluation = evaluate(create("torch", network), data.test)
    warnings = tuple(at_end(config, data, evaluation))
    folder.save_metrics(
        evaluation, fitted.best, fitted.epochs, warnings, exact=rounded.exact, interrupted=fitted.interrupted
    )
    evaluation.save(folder.path / "evaluation.npz", data.test)
    return TrainedRun(fitted, network, evaluation, warnings)
