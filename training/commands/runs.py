"""The commands for a run that has ended, `evaluate` and `export RUN`, and what they share with `fit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import require_name
from spikeserve.models.engines import EngineName, create
from spikeserve.training.commands.groups import RepositoryOption, console
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import Dataset, load
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.publish.export import export
from spikeserve.training.report.evaluate import ACCURACY_VARIES, Evaluation, evaluate

RunArgument = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
NameOption = Annotated[str | None, typer.Option(help="The model's name.", show_default="the data set's")]


def evaluate_run(
    run: RunArgument,
    engine: Annotated[EngineName, typer.Option(help="The engine that runs the test samples.")] = EngineName.TORCH,
) -> None:
    """Run the test samples again, through any engine."""
    folder = RunFolder(run)
    data = load_data(folder.config())
    print_evaluation(evaluate(create(engine, folder.network()), data.test), data)


def export_run(run: RunArgument, repository: RepositoryOption = "repository", name: NameOption = None) -> None:
    """Compare the engines on the test set and publish the run as the next version of a model."""
    folder = RunFolder(run)
    if name:
        require_name(name)
    data = load_data(folder.config())
    publish_run(folder, data, repository, name or data.name)


def load_data(config: TrainingConfig) -> Dataset:
    """Load the data set of a configuration, and print what is odd about it."""
    data = load(config.data, config.network.coding)
    for sentence in data.warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    return data


def print_evaluation(evaluation: Evaluation, data: Dataset) -> None:
    """Print the accuracy on the test split, the firing rates and the synaptic operations."""
    table = Table("layer", "firing rate", title=f"{data.name}: {len(data.test)} test samples")
    for layer, rate in evaluation.firing_rates.items():
        table.add_row(layer, f"{rate:.2%}")
    console.print(table)
    right = round(evaluation.accuracy * len(data.test))
    console.print(f"Test accuracy {evaluation.accuracy:.2%} ({right} of {len(data.test)})")
    console.print(ACCURACY_VARIES)
    console.print(f"Synaptic operations per sample {evaluation.synaptic_operations.mean():.0f}")


def publish_run(run: RunFolder, data: Dataset, repository: str, name: str) -> None:
    """Publish a run as the next version of the model `name`, and print what was compared."""
    export(run, data, repository_at(repository), name).show(console)
