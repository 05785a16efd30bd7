"""The commands for a run that has ended, `evaluate` and `export RUN`, and what a new one needs and would ignore."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import require_name
from spikeserve.models.door import surest
from spikeserve.models.engines import EngineName, create
from spikeserve.models.spec import Spec
from spikeserve.models.spec.nodes import Neuron, Spiking
from spikeserve.training.commands.flags import Flag, flags_of, typed
from spikeserve.training.commands.groups import RepositoryOption, console
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import LOADERS, Dataset, load, load_for, unused_fields, unused_splits
from spikeserve.training.data.tables import SUFFIXES
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.architecture import OF_NEURONS, Architecture
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import TrainedRun, check_start, prepare
from spikeserve.training.publish.publish import export
from spikeserve.training.report.evaluate import ACCURACY_VARIES, Evaluation, evaluate

FLAGS = tuple(flags_of(TrainingConfig))  # of `fit`
RunArgument = Annotated[Path, typer.Argument(help="The run's folder.", show_default=False)]
NameOption = Annotated[str | None, typer.Option(help="The model's name.", show_default="the data set's")]


def evaluate_run(
    run: RunArgument,
    engine: Annotated[EngineName, typer.Option(help="The engine that runs the test samples.")] = "torch",
) -> None:
    """Run the test samples again, through any engine."""
    folder = RunFolder(run)
    data = load_data(folder.config())
    print_evaluation(evaluate(create(engine, folder.network()), data.test), data)


def export_run(
    run: RunArgument,
    repository: RepositoryOption = "repository",
    name: NameOption = None,
    at_chance: Annotated[
        bool,
        typer.Option("--at-chance", help="Publish a network that is no better than chance.", show_default="refuse it"),
    ] = False,
) -> None:
    """Compare the engines on the test set and publish the run as the next version of a model."""
    folder = RunFolder(run)
    if name:
        require_name(name)
    data = load_data(folder.config())
    publish_run(folder, data, repository, name or data.name, at_chance=at_chance)


def load_data(config: TrainingConfig) -> Dataset:
    """Load the data set of a configuration, and print what is odd about it."""
    data = load(config.data, config.network.coding)
    _warn(data)
    return data


def _warn(data: Dataset) -> None:
    for sentence in data.warnings:
        print(f"warning: {sentence}", file=sys.stderr)


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


def publish_run(
    run: RunFolder, data: Dataset, repository: str, name: str, *, job: TrainedRun | None = None, at_chance: bool = False
) -> None:
    """Publish a run as the next version of the model `name`, and print what was compared."""
    export(run, data, repository_at(repository), name, job=job, at_chance=at_chance).show(console)


DATA = (
    "The data that the model was trained on: the folder of its run, the file --config of `fit`, your own .npz, or the "
    "name of a data set."
)
DataOption = Annotated[str | None, typer.Option(help=DATA, show_default="that named like the model")]


def start_run(context: typer.Context, config: TrainingConfig) -> tuple[TrainingConfig, Dataset]:
    """Load the data, and return it behind the configuration with every field set.

    Raises InvalidConfig for a field that the user chose and the run would ignore, and whatever else keeps it from
    starting.
    """
    refuse_unused(context, config, unused_fields(config.data))
    settings, data = prepare(config)
    if data.read_as:
        console.print(data.read_as, highlight=False, markup=False, soft_wrap=True)
    _warn(data)
    architecture = check_start(settings, data)
    refuse_unused(context, config, unused_settings(settings, data, architecture))
    return settings, data


def data_of_model(context: typer.Context, spec: Spec, name: str, data: str | None) -> Dataset:
    """Load the data of the model `name`, as `--data` says, else the data set of that name.

    Raises InvalidConfig where none of them says which, and InvalidData where the data is not the model's.
    """
    chosen = name if data is None else data
    path = Path(chosen)
    if chosen in LOADERS:
        settings = TrainingConfig.read(None, {"data": {"dataset": chosen}})
    elif data is None or not path.exists():
        raise InvalidConfig(
            f"the data of model '{name}' is not known; give --data with the folder of its run, the file that `fit` "
            f"read, your own .npz, or one of {', '.join(LOADERS)}"
            + ("" if data is None else f": '{data}' is not there")
        )
    elif path.is_dir():
        settings = RunFolder(path).config()
    elif path.suffix.lower() in (".npz", *SUFFIXES) or surest("reader", path, {}):
        settings = TrainingConfig.read(None, {"data": {"file": chosen}})
    else:
        settings = TrainingConfig.read(path, {})
    refuse_unused(context, settings, unused_fields(settings.data))
    return load_for(settings.data, spec, name)


def refuse_unused(context: typer.Context, config: TrainingConfig, unused: Mapping[str, str]) -> None:
    """Raise InvalidConfig where the user chose a field of `unused`, which has the reason for each by its name.

    Chosen is what was typed, and what a file says other than the defaults: one that `fit` wrote has every field.
    """
    values = config.model_dump(mode="json")
    ignored = [
        f"{named} would be ignored: {unused[flag.name]}"
        for flag in FLAGS
        if flag.name in unused and (named := _chosen(flag, context, values))
    ]
    if ignored:
        raise InvalidConfig("; ".join(ignored))


def _chosen(flag: Flag, context: typer.Context, values: Mapping[str, Any]) -> str:
    """Return the user's name of a field that was chosen, empty for one that was not."""
    if typed(context, flag.name):
        return flag.text
    value = (values[flag.section] if flag.section else values)[flag.name]
    return "" if flag.is_default(value) else f"{flag.section}.{flag.name}".lstrip(".")


def unused_settings(config: TrainingConfig, data: Dataset, architecture: Architecture) -> Mapping[str, str]:
    """Return the fields that a run under `config` ignores, each with the reason as the end of a sentence.

    The fields of the data set that are known before it is loaded are those of `unused_fields`.
    """
    network, unused = config.network, dict(unused_splits(data))
    if network.coding.per_step:
        unused["time_steps"] = f"with coding '{network.coding}' samples have steps of their own"
    if absent := [name for name in network.learn if name not in architecture.learned]:
        unused["learn"] = f"no neuron of the network has a {absent[0]} of its own to learn"
    kinds = sorted({node.type for node in architecture.spec.nodes if isinstance(node, Neuron)})
    reason = (
        f"no neuron of the network takes it (they are {', '.join(kinds)})" if kinds else "the network has no neuron"
    )
    unused |= {name: reason for name in ("neuron", *OF_NEURONS) if name not in architecture.used}
    if network.kernels:
        sections = (config.optimisation, config.augment, config.parallel)
        fields = [name for section in sections for name in type(section).model_fields]
        unused |= dict.fromkeys([*fields, "learn"], "random kernels have a readout that is solved, not trained")
    elif not any(isinstance(node, Spiking) for node in architecture.spec.nodes):
        unused |= dict.fromkeys(("surrogate", "slope", "rate_penalty"), "no neuron of the network fires")
    return unused
