"""What a new run needs, its data and its network; and the refusal of what it would ignore, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeserve.models.spec import Spec
from spikeserve.training.commands.flags import FLAGS, Flag, typed
from spikeserve.training.commands.runs import load_data
from spikeserve.training.config import TrainingConfig
from spikeserve.training.data.datasets import LOADERS, Dataset, load_for, unused_fields
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import check_start
from spikeserve.training.fit.unused import unused_settings

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
    data = load_data(config)
    settings = config.for_data()
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
    elif path.suffix == ".npz":
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
    found = [
        f"{named} would be ignored: {unused[flag.name]}"
        for flag in FLAGS
        if flag.name in unused and (named := _chosen(flag, context, values))
    ]
    if found:
        raise InvalidConfig("; ".join(found))


def _chosen(flag: Flag, context: typer.Context, values: Mapping[str, Any]) -> str:
    """Return the user's name of a field that was chosen, empty for one that was not."""
    if typed(context, flag.name):
        return flag.text
    value = (values[flag.section] if flag.section else values)[flag.name]
    return "" if flag.is_default(value) else f"{flag.section}.{flag.name}".lstrip(".")
