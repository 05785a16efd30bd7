"""The command `fit`: train a network under a configuration, whose every field is a flag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from models.bundle.repository import require_name
from training.commands.flags import given, with_flags
from training.commands.runs import NameOption, console, load_data, print_evaluation, publish_run
from training.config import TrainingConfig
from training.fit.folder import RunFolder
from training.fit.job import run_job
from training.report.display import shown

INTERRUPTED = 130


@with_flags(TrainingConfig)
def fit(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A TOML file; flags win over it.", show_default="none")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, under its own configuration.", show_default="a new run")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Publish to this model repository at the end.", show_default="do not publish")
    ] = None,
    name: NameOption = None,
    **_flags: Any,
) -> None:
    """Fit a network with surrogate gradients and, with --repository, export it.

    Each panel below is a section of the TOML file that --config reads, and each flag a field of it.
    """
    overrides = given(TrainingConfig, context)
    settings = RunFolder(resume).config() if resume else TrainingConfig.read(config, overrides)
    if name:
        require_name(name)
    data = load_data(settings)
    run = RunFolder(resume) if resume else RunFolder.fresh(runs, data.name)
    with shown(settings.optimisation.epochs, run.path / "tensorboard", console) as watcher:
        job = run_job(settings, data, run, watcher, resume=resume is not None)
    print_evaluation(job.evaluation, data)
    console.print(f"Run folder: {run.path}", highlight=False)
    if job.fitted.interrupted:
        console.print(
            f"Interrupted; the best epoch so far is kept. Go on with: fit --resume {run.path}", highlight=False
        )
        raise typer.Exit(INTERRUPTED)
    if repository:
        publish_run(run, data, repository, name or data.name)
