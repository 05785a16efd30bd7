"""The command `fit`: train a network under a configuration, whose every field is a flag."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeserve.models.bundle.repository import require_name
from spikeserve.models.door import of_kind
from spikeserve.models.folders import made
from spikeserve.models.spec.parameters import show
from spikeserve.training.commands.flags import TOP_LEVEL, typed, typed_fields, with_flags
from spikeserve.training.commands.groups import console
from spikeserve.training.commands.runs import FLAGS, load_data, print_evaluation, publish_run, start_run
from spikeserve.training.config import AUTO, TrainingConfig
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.devices import join
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import check_start, run_job
from spikeserve.training.report.display import shown
from spikeserve.training.report.epochs import SILENT, accuracy_by_minutes, kept

INTERRUPTED = 130


def draw(run: RunFolder) -> None:
    """Draw the run's plots, where the door has the command `plot`; what keeps it from that is a sentence."""
    plot = of_kind("command").get("plot")
    if plot is not None and not plot.missing:
        with suppress(SystemExit):
            plot.load()([str(run.path)])


def _option(said: str, default: str | bool = True, panel: str | None = TOP_LEVEL) -> Any:
    return typer.Option(help=said, show_default=default, rich_help_panel=panel)


@partial(with_flags, flags=FLAGS)
def fit(
    context: typer.Context,
    repository: Annotated[
        str | None, _option("Publish to this model repository at the end, a folder or URL.", "do not publish", None)
    ] = None,
    name: Annotated[str | None, _option("The published model's name.", "the data set's")] = None,
    config: Annotated[Path | None, _option("A TOML file; flags win over it.", "none")] = None,
    runs: Annotated[Path, _option("Where run folders are made.")] = Path("runs"),
    resume: Annotated[Path | None, _option("Go on with this run, under its own configuration.", "a new run")] = None,
    **_flags: Any,
) -> None:
    """Fit a network with surrogate gradients and, with --repository, export it.

    Its first flags are what you need first; each panel after them is a section of the file that --config reads.
    """
    overrides = typed_fields(context, FLAGS)
    if resume:
        _refuse_what_resume_ignores(context)
        settings = _resumed(RunFolder(resume), overrides)
        target = RunFolder(resume).target
        repository, name = repository or target[0], name or target[1]
    else:
        settings = TrainingConfig.read(config, overrides)
    if name:
        require_name(name)
    if resume:
        data = load_data(settings)
        settings = settings.for_data(data.training.samples.shape)
        check_start(settings, data)
    else:
        chooses = settings.network.architecture == AUTO
        settings, data = start_run(context, settings)
        if chooses:
            shape = show(data.training.samples.shape[1:])
            said = f"Architecture {settings.network.architecture}, which suits {len(data.training)} samples of {shape}"
            console.print(said, highlight=False, markup=False, soft_wrap=True)
    if name and not repository:
        raise InvalidConfig("--name would be ignored: it names what --repository publishes; add --repository FOLDER")
    fitting, samples = settings.optimisation, len(data.training)
    said = (
        f"{samples} training samples: the readout of random kernels is solved, and validated by leaving each sample out"
        if settings.network.kernels
        else f"{samples} training samples in batches of {fitting.batch_size}, {fitting.epochs} epochs: at most "
        f"{fitting.updates(samples)} updates of the weights"
    )
    console.print(said, highlight=False, soft_wrap=True)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends a run as Ctrl-C does
    devices = join(settings)
    if not devices.first:  # it writes nothing, and ends with the fit
        run_job(settings, data, RunFolder(resume or runs), SILENT, resume=resume is not None, devices=devices)
    with nullcontext() if resume else made(runs):
        run = RunFolder(resume) if resume else RunFolder.fresh(runs, data.name)
        if repository:
            run.save_target(repository, name)
        if resume and not run.begun:
            console.print(f"No epoch of {run.path} had ended: it begins again.")
        with (
            nullcontext() if resume else run.removed_unless_begun(),
            shown(1 if settings.network.kernels else fitting.epochs, run.path / "tensorboard", console) as watcher,
        ):
            job = run_job(settings, data, run, watcher, resume=resume is not None, devices=devices)
    if said := accuracy_by_minutes(job.fitted.epochs):
        console.print(said, highlight=False, soft_wrap=True)
    draw(run)
    print_evaluation(job.evaluation, data)
    for sentence in job.warnings:
        console.print(f"warning: {sentence}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Run folder: {run.path}")
    if job.fitted.interrupted:
        saved = kept(job.fitted.best.validation_samples)
        console.print(f"Interrupted; {saved}. Go on with: fit --resume {run.path}")
        raise typer.Exit(INTERRUPTED)
    if repository:
        publish_run(run, data, repository, name or data.name, job=job)


def _refuse_what_resume_ignores(context: typer.Context) -> None:
    flags = {"config": "--config", "runs": "--runs"} | {
        flag.name: flag.text for flag in FLAGS if "resumable" not in flag.schema
    }
    ignored = [text for name, text in flags.items() if typed(context, name)]
    if ignored:
        *others, last = [flag.text for flag in FLAGS if "resumable" in flag.schema]
        raise InvalidConfig(
            f"--resume goes on under the run's own configuration and would ignore {', '.join(ignored)}; "
            f"of the configuration, only {', '.join(others)} and {last} may change"
        )


def _resumed(run: RunFolder, overrides: Mapping[str, Any]) -> TrainingConfig:
    settings = run.config(overrides)
    epochs, before = settings.optimisation.epochs, run.config().optimisation.epochs
    if epochs < before:
        raise InvalidConfig(
            f"--epochs is {epochs}, expected at least {before} as in the run, "
            "which --resume can make longer but not shorter"
        )
    return settings
