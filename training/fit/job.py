"""The training job from data to run folder: what `fit` does, without a word to the terminal."""

from __future__ import annotations

from dataclasses import dataclass

from models.coding import encode
from models.engines import EngineName, Record, create
from models.spec import Coding, Spec
from models.spec.network import Network
from training.config import TrainingConfig
from training.data.datasets import Dataset
from training.fit.architecture import build_spec
from training.fit.exact import round_to_grid
from training.fit.folder import RunFolder
from training.fit.loop import Fitted, fit
from training.report.epochs import Watcher
from training.report.evaluate import Evaluation, evaluate
from training.report.plots import save_confusion, save_curves, save_raster

TIME_STEPS = 8  # unless the configuration or the data says otherwise


@dataclass(frozen=True)
class Job:
    """A run that has ended: how it was fitted, and how the network that will be served does on the test split."""

    fitted: Fitted
    network: Network
    exact: bool
    evaluation: Evaluation


def spec_for(config: TrainingConfig, data: Dataset) -> Spec:
    """Return the network that a configuration asks for on a data set; a raster's length is the data's."""
    steps = config.network.time_steps or TIME_STEPS
    if config.network.coding is Coding.SPIKES:
        steps = data.training.samples.shape[1]
    return build_spec(config.network, data.declared, data.class_names, steps)


def run_job(config: TrainingConfig, data: Dataset, folder: RunFolder, watcher: Watcher, *, resume: bool = False) -> Job:
    """Fit, put the best weights on their grid, evaluate them once on the test split, and fill the run's folder."""
    config.write(folder.path / "config.toml")
    fitted = fit(spec_for(config, data), data, config, folder.checkpoint, resume=resume, watcher=watcher)
    rounded = round_to_grid(fitted.network)
    network = rounded.network
    folder.save_network(network)
    engine = create(EngineName.TORCH, network)
    evaluation = evaluate(engine, data.test)
    folder.save_metrics(evaluation, fitted.best, fitted.epochs, exact=rounded.exact, interrupted=fitted.interrupted)
    evaluation.save(folder.path / "evaluation.npz", data.test)
    save_curves(fitted.epochs, folder.path / "curves.png")
    save_confusion(evaluation.confusion, data.class_names, folder.path / "confusion.png")
    recorded, _ = engine.run(encode(data.test.samples[:1], network.spec), record=Record.RASTER)
    true, found = (data.class_names[int(index[0])] for index in (data.test.labels, recorded.class_index))
    save_raster(recorded, 0, f"test sample 0: {true}, predicted {found}", folder.path / "raster.png")
    return Job(fitted, network, rounded.exact, evaluation)
