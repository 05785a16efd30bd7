"""Search for a learning rate and a slope over three seeds, with Optuna.

.venv/bin/python -m docs.sweep run.toml 30
"""

import sys
from pathlib import Path

import optuna

from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import load
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import run_job
from spikeserve.training.report.epochs import Epoch, Watcher


def objective(trial: optuna.Trial) -> float:
    """Train once and return the validation accuracy: the test split chooses nothing."""
    chosen = {
        "seed": trial.suggest_int("seed", 0, 2),
        "optimisation": {
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
            "slope": trial.suggest_float("slope", 1.0, 20.0),
        },
    }
    config = TrainingConfig.read(Path(sys.argv[1]), chosen)
    data = load(config.data, config.network.coding)

    def report(epoch: Epoch) -> None:
        trial.report(epoch.validation_accuracy, epoch.number)
        if trial.should_prune():
            raise optuna.TrialPruned

    job = run_job(config, data, RunFolder.fresh(Path("runs"), data.name), Watcher(epoch=report))
    return job.fitted.best.validation_accuracy


if __name__ == "__main__":
    storage = "sqlite:///sweep.db"  # trials are kept, and may run in several processes at once
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
    study.optimize(objective, n_trials=int(sys.argv[2]))
    print(f"Best validation accuracy {study.best_value:.2%} with {study.best_params}")
