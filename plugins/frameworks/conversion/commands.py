"""`convert`: a trained network without spikes as a spiking one, with what each number of steps costs in accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.bar import Bar
from rich.table import Table

from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import require_name
from spikeserve.models.engines import available, create
from spikeserve.models.engines.anytime import Calibration
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import show
from spikeserve.plugins.frameworks.commands import FLAGS
from spikeserve.plugins.frameworks.conversion.calibration import calibrated
from spikeserve.plugins.frameworks.conversion.onnx_file import read_onnx
from spikeserve.plugins.frameworks.conversion.source import read_source
from spikeserve.plugins.frameworks.entry import load_network
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.commands.flags import with_flags
from spikeserve.training.commands.groups import ModelNameOption, RepositoryOption, console, program
from spikeserve.training.commands.imports import read, show_input
from spikeserve.training.commands.runs import data_of_model
from spikeserve.training.data.datasets import Dataset
from spikeserve.training.errors import ExportRefused, InvalidConfig, InvalidData
from spikeserve.training.publish.calibrate import calibrate
from spikeserve.training.publish.publish import measured, publish_trained
from spikeserve.training.report.card import EARLY, calibration_text, markdown, parity_table, table
from spikeserve.training.report.evaluate import Evaluation, evaluate
from spikeserve.training.report.parity import Parity

TRIED = (4, 8, 16, 32, 64)
MOST_SAMPLES = 1000  # of a split, so that trying takes minutes at most
OPTIONS = ("state_dict", "labels", "low", "high", "mean", "std", "out_of_range")
HEADER = ("time steps", "validation", "test", "points lost", "synaptic operations")


@partial(with_flags, flags=[flag for flag in FLAGS if flag.name in OPTIONS])
def convert_command(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="Your own code, package.module:factory, or an ONNX file.", show_default=False)
    ],
    calibration: Annotated[
        str, typer.Option(help="Samples with labels: your own .npz, or other data as of `calibrate`.")
    ],
    name: ModelNameOption,
    input_shape: Annotated[str, typer.Option(help="One sample, such as 1,28,28.")],
    repository: RepositoryOption = "repository",
    time_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps per sample.", show_default="the fewest of 4, 8, 16, 32, 64 that lose no more"),
    ] = None,
    loss: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Percentage points that validation samples may lose.")
    ] = 0.5,
    **typed: Any,
) -> None:
    """Convert a trained network of ReLUs into one that spikes, and publish it as the next version of a model.

    Training samples calibrate it, validation samples choose --time-steps, and what test samples lose is shown.
    """
    require_name(name)
    options = read(FrameworkOptions, {"input_shape": input_shape, "time_steps": 1, **typed})
    if source.endswith(".onnx") and options.state_dict is not None:
        raise InvalidConfig(f"--state-dict is '{options.state_dict}', but an ONNX file has its weights inside")
    module = read_onnx(Path(source)) if source.endswith(".onnx") else load_network(source, options.state_dict)
    network = read_source(module, options)
    data = data_of_model(context, network.spec, name, calibration)
    if not network.spec.scores.has_classes or not len(data.validation):
        raise InvalidData(f"calibration: '{calibration}' has no classes or validation samples, expected more x and y")
    network = _with_data(network, data, options)
    splits = data.validation[:MOST_SAMPLES], data.test[:MOST_SAMPLES]
    before = [evaluate(create("torch", network), split) for split in splits]
    tried_at, chosen = dict[str, list[Evaluation]](source=before), list[tuple[Network, Evaluation]]()
    for steps in TRIED if time_steps is None else (time_steps,):
        tried = calibrated(network, data.training.samples, steps)
        evaluations = [evaluate(create(available()[0], tried), split) for split in splits]
        tried_at[f"{steps}"] = evaluations
        if time_steps is not None or (before[0].accuracy - evaluations[0].accuracy <= loss / 100 and not chosen):
            chosen.append((tried, evaluations[1]))
    rows = [_row(name, evaluations, before) for name, evaluations in tried_at.items()]
    console.print(_plot(rows, f"{len(splits[0])} validation and {len(splits[1])} test samples"))
    if not chosen:
        raise ExportRefused(
            f"--loss is {loss:g}, but the validation samples lose more with each number of time steps that was tried; "
            "give a higher one, or --time-steps"
        )
    (spiking, on_test), *_ = chosen
    ending = calibrate(create(available()[0], spiking), splits[0], data.training[:MOST_SAMPLES])
    published = publish_trained(
        spiking,
        repository_at(repository),
        name,
        splits[1],
        lambda parity: _card(name, spiking, source, data, rows, ending, parity),
        measured(on_test),
        ending,
    )
    console.print(f"Time steps: {spiking.spec.time_steps}")
    show_input(spiking.spec.input)
    published.show(console)


def _with_data(network: Network, data: Dataset, options: FrameworkOptions) -> Network:
    """Return a network with the data's range and names of classes, where no flag says others."""
    spec = network.spec
    own = {name: getattr(data.declared, name) for name in ("low", "high") if getattr(options, name) is None}
    fields = {name: getattr(spec, name) for name in type(spec).model_fields}
    fields |= {"input": type(spec.input)(**{**spec.input.model_dump(), **own})}
    fields |= {} if options.labels else {"labels": data.class_names}
    return Network(type(spec)(**fields), network.tensors)


def _row(name: str, evaluations: Sequence[Evaluation], before: Sequence[Evaluation]) -> tuple[str, ...]:
    """Return the cells of HEADER: accuracy on validation and test samples, and what the latter lose."""
    lost, operations = 100 * (before[1].accuracy - evaluations[1].accuracy), evaluations[1].synaptic_operations.mean()
    accuracies = (f"{each.accuracy:.2%}" for each in evaluations)
    return (name, *accuracies, *(("", "") if evaluations is before else (f"{lost:.2f}", f"{operations:.0f}")))


def _plot(rows: Sequence[Sequence[str]], title: str) -> Table:
    """Return the rows as a table in which a bar shows the points lost."""
    shown = Table(*HEADER, "", title=title)
    lost = [float(row[3] or 0) for row in rows]
    for row, points in zip(rows, lost, strict=True):
        shown.add_row(*row, Bar(max(0.01, *lost), 0, max(0.0, points), width=20))
    return shown


def _card(
    name: str,
    network: Network,
    source: str,
    data: Dataset,
    rows: Sequence[Sequence[str]],
    ending: Calibration,
    parity: Sequence[Parity],
) -> str:
    spec = network.spec
    return markdown(
        name,
        f"A spiking network that tells {spec.classes} classes apart, converted from `{source}`, which has none: "
        f"{network.parameter_count} parameters, {spec.time_steps} time steps, {spec.coding} coding.",
        {
            "Input": f"{show(spec.input.shape)} raw values from {spec.input.described_range}",
            "Classes": ", ".join(spec.labels),
            "Data": f"{data.name}: {len(data.training)} samples to calibrate by, {len(data.validation)} to choose "
            f"the time steps by, {len(data.test)} to test on",
        },
        {
            "Accuracy by time steps": "Beside the source, which computes without spikes. Each row was calibrated "
            f"for its own number of steps.\n\n{table(HEADER, rows)}",
            EARLY: calibration_text(ending),
            "Agreement of the engines": f"Against the reference engine, on the test samples.\n\n{parity_table(parity)}",
            "Limits": "It knows only what its source was trained on. With other time steps than its own it loses more.",
        },
    )


main = program("convert", convert_command)
