"""What a new run needs, its data and its network; and the refusal of what it would ignore, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from spikeserve.models.spec import Spec
from spikeserve.training.commands.flags import Flag, flags_of, given, typed
from spikeserve.training.commands.runs import load_data
from spikeserve.training.config import DataConfig, TrainingConfig
from spikeserve.training.data.datasets import LOADERS, Dataset, load_for, unused_fields, unused_splits
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.fit.architecture import Architecture
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.job import check_start
from spikeserve.training.fit.unused import unused_settings

RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="The run that the model is of: its data, split as there.", show_default="by data flags"),
]


def start_run(
    context: typer.Context, config: TrainingConfig, unused: Mapping[str, str] | None = None
) -> tuple[TrainingConfig, Dataset, Architecture]:
    """Load the data; return the configuration with every field set, the data and the network.

    Raises InvalidConfig for a field that the user chose and the run would ignore, `unused` by this command included,
    and whatever else keeps it from starting.
    """
    refuse_unused(context, config, {**unused_fields(config.data), **(unused or {})})
    data = load_data(config)
    settings = config.for_data()
    architecture = check_start(settings, data)
    refuse_unused(context, config, unused_settings(settings, data, architecture))
    return settings, data, architecture


def data_of_model(context: typer.Context, run: Path | None, spec: Spec, name: str) -> Dataset:
    """Load the data of the model `name`: that of its run, of the data flags, or the data set that is named like it.

    Raises InvalidConfig where none of them says which, and InvalidData where the data is not the model's.
    """
    flags = given(DataConfig, context)
    if run is not None:
        if flags:
            raise InvalidConfig(
                f"--{next(iter(flags)).replace('_', '-')} would be ignored: the data is that of --run; give one of them"
            )
        return load_for(RunFolder(run).config().data, spec, name)
    if not {"dataset", "file"} & flags.keys():
        if name not in LOADERS:
            raise InvalidConfig(
                f"the data of model '{name}' is not known; give --run with the folder of its run, or --file or "
                "--dataset and the other data flags of its training"
            )
        flags["dataset"] = name
    config = TrainingConfig.read(None, {"data": flags}).data
    refuse_unused(context, config, unused_fields(config))
    data = load_for(config, spec, name)
    refuse_unused(context, config, unused_splits(data))
    return data


def refuse_unused(context: typer.Context, config: BaseModel, unused: Mapping[str, str]) -> None:
    """Raise InvalidConfig where the user chose a field of `unused`, which has the reason for each by its name.

    Chosen is what was typed, and what a file says other than the defaults: one that `fit` wrote has every field.
    """
    values = config.model_dump(mode="json")
    found = [
        f"{named} would be ignored: {unused[flag.name]}"
        for flag in flags_of(type(config))
        if flag.name in unused and (named := _chosen(flag, context, values))
    ]
    if found:
        raise InvalidConfig("; ".join(found))


def _chosen(flag: Flag, context: typer.Context, values: Mapping[str, Any]) -> str:
    """Return what the user calls a field that was chosen, empty for one that was not."""
    if typed(context, flag.name):
        return flag.text
    value: Any = values
    for part in flag.path:
        value = value[part]
    return "" if flag.is_default(value) else ".".join(flag.path)
