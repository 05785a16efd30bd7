"""`python -m training`: fit a network, evaluate it, export it as a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from models.bundle.repository import ModelRepository, require_name
from models.engines import EngineName, create
from models.errors import SpikeserveError
from models.spec import Coding, Readout
from models.spec.nodes import Fire, Reset
from training.commands import RUN, RepositoryOption, exports, imports
from training.config import Surrogate, TrainingConfig
from training.data.datasets import Dataset, load
from training.fit.folder import RunFolder
from training.fit.job import run_job
from training.importers.frameworks.commands import verify
from training.importers.nir.commands import check_command
from training.importers.onnx import import_command as import_onnx
from training.publish.export import export
from training.report.display import shown
from training.report.evaluate import Evaluation, evaluate

INTERRUPTED = 130

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(imports, name="import")
app.add_typer(exports, name="export")
app.command("check")(check_command)
imports.command("onnx")(import_onnx)
app.command()(verify)
console = Console()

RunArgument = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
NameOption = Annotated[str | None, typer.Option(help="The model's name; the data set's if absent.")]


@app.command()
def fit(
    config: Annotated[Path | None, typer.Option(help="A TOML file; flags win over it.")] = None,
    dataset: Annotated[str | None, typer.Option(help="digits, mnist, fashion-mnist or arrays.")] = None,
    file: Annotated[Path | None, typer.Option(help="arrays: the .npz with x and y.")] = None,
    folder: Annotated[Path | None, typer.Option(help="mnist, fashion-mnist: where the data lies.")] = None,
    download: Annotated[bool | None, typer.Option("--download", help="mnist, fashion-mnist: download it.")] = None,
    architecture: Annotated[str | None, typer.Option(help="Layers, such as 32C3-AP2-64C3-AP2-128.")] = None,
    neuron: Annotated[str | None, typer.Option(help="IF, LIF or CubaLIF.")] = None,
    decay: Annotated[float | None, typer.Option(help="What a membrane that leaks keeps per step, 0 to 1.")] = None,
    syn_decay: Annotated[float | None, typer.Option(help="CubaLIF: what the synaptic current keeps, 0 to 1.")] = None,
    fire: Annotated[Fire | None, typer.Option(help="Fire at the threshold or only above it.")] = None,
    reset: Annotated[Reset | None, typer.Option(help="What a spike does to the membrane.")] = None,
    coding: Annotated[Coding | None, typer.Option(help="How a sample becomes steps.")] = None,
    readout: Annotated[Readout | None, typer.Option(help="What the class is read from.")] = None,
    time_steps: Annotated[int | None, typer.Option(help="Steps per sample.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs at most.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per batch.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At the first epoch; falls to 0 as a cosine.")] = None,
    surrogate: Annotated[Surrogate | None, typer.Option(help="The surrogate gradient.")] = None,
    slope: Annotated[float | None, typer.Option(help="The surrogate's slope.")] = None,
    rate_penalty: Annotated[float | None, typer.Option(help="The weight of the firing-rate penalty.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything that is random.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, under its own configuration.")] = None,
    repository: Annotated[Path | None, typer.Option(help="Publish to this model repository at the end.")] = None,
    name: NameOption = None,
) -> None:
    """Fit a network with surrogate gradients and, with --repository, export it."""
    overrides: dict[str, dict[str, Any]] = {
        "": {"seed": seed, "device": device},
        "data": {"dataset": dataset, "file": file, "folder": folder, "download": download},
        "network": {
            "architecture": architecture, "neuron": neuron, "decay": decay,
            "syn_decay": syn_decay, "fire": fire, "reset": reset,
            "coding": coding, "readout": readout, "time_steps": time_steps,
        },
        "optimisation": {
            "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "surrogate": surrogate,
            "slope": slope, "rate_penalty": rate_penalty,
        },
    }  # fmt: skip
    settings = RunFolder(resume).config() if resume else TrainingConfig.read(config, overrides)
    if name:
        require_name(name)
    data = _load(settings)
    run = RunFolder(resume) if resume else RunFolder.fresh(runs, data.name)
    with shown(settings.optimisation.epochs, run.path / "tensorboard", console) as watcher:
        job = run_job(settings, data, run, watcher, resume=resume is not None)
    _report(job.evaluation, data)
    console.print(f"Run folder: {run.path}", highlight=False)
    if job.fitted.interrupted:
        console.print(
            f"Interrupted; the best epoch so far is kept. Go on with: fit --resume {run.path}", highlight=False
        )
        raise typer.Exit(INTERRUPTED)
    if repository:
        _publish(run, data, repository, name or data.name)


@app.command("evaluate")
def evaluate_run(
    run: RunArgument,
    engine: Annotated[EngineName, typer.Option(help="The engine that runs the test samples.")] = EngineName.TORCH,
) -> None:
    """Run the test samples again, through any engine."""
    folder = RunFolder(run)
    data = _load(folder.config())
    _report(evaluate(create(engine, folder.network()), data.test), data)


@exports.command(RUN)
def export_run(run: RunArgument, repository: RepositoryOption = Path("repository"), name: NameOption = None) -> None:
    """Compare the engines on the test set and publish the run as the next version of a model."""
    folder = RunFolder(run)
    if name:
        require_name(name)
    data = _load(folder.config())
    _publish(folder, data, repository, name or data.name)


def _load(config: TrainingConfig) -> Dataset:
    data = load(config.data, config.network.coding)
    for sentence in data.warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    return data


def _report(evaluation: Evaluation, data: Dataset) -> None:
    table = Table("layer", "firing rate", title=f"{data.name}: {len(data.test)} test samples")
    for layer, rate in evaluation.firing_rates.items():
        table.add_row(layer, f"{rate:.2%}")
    console.print(table)
    right = round(evaluation.accuracy * len(data.test))
    console.print(f"Test accuracy {evaluation.accuracy:.2%} ({right} of {len(data.test)})", highlight=False)
    console.print(f"Synaptic operations per sample {evaluation.synaptic_operations.mean():.0f}", highlight=False)


def _publish(run: RunFolder, data: Dataset, repository: Path, name: str) -> None:
    export(run, data, ModelRepository(repository), name).show(console)


def main() -> None:
    """Run the command line; a user's mistake is one sentence on standard error."""
    try:
        app()
    except (SpikeserveError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
