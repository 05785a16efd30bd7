"""The command `import lava`: a network of lava-dl as a bundle, in Loihi's arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import require_name
from spikeserve.models.spec import Coding
from spikeserve.plugins.nir.lava.convert import convert
from spikeserve.plugins.nir.lava.file import read
from spikeserve.training.commands.groups import ModelNameOption, RepositoryOption, console, shape_of
from spikeserve.training.commands.input_flags import show_input, with_input_flags
from spikeserve.training.importers.builder import Options
from spikeserve.training.publish.publish import publish_imported
from spikeserve.training.report.card import imported_card

OF_FILE = "what the file says"


@with_input_flags
def import_command(
    file: Annotated[Path, typer.Argument(help="The .net file that lava-dl wrote.", show_default=False)],
    name: ModelNameOption,
    repository: RepositoryOption = "repository",
    time_steps: Annotated[
        int | None, typer.Option(help="Steps per sample.", show_default="what the file says, or 100")
    ] = None,
    coding: Annotated[
        Coding | None,
        typer.Option(help="How a sample becomes steps.", show_default="direct for neurons at the input, else spikes"),
    ] = None,
    input_shape: Annotated[str | None, typer.Option(help="Such as 2,34,34.", show_default=OF_FILE)] = None,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency",
            help="Each connection takes a step, as in Lava without a reset_interval.",
            show_default="a spike arrives in its own step",
        ),
    ] = False,
    *,
    declared: dict[str, Any],
) -> None:
    """Publish a network of lava-dl as a model's next version, in the whole numbers that Loihi computes with."""
    require_name(name)
    read_file = read(file)
    shape = None if input_shape is None else shape_of(input_shape)
    options = Options(shape, time_steps or read_file.time_steps, coding, **declared)
    network = convert(read_file.layers, options, latency=latency)
    facts = {
        "File": f"{file.name}, SHA-256 `{read_file.sha256}`",
        "Arithmetic": "Loihi's, on whole numbers of 24 bits",
        "Latency": "a step for each connection" if latency else "none: a spike arrives in the step in which it leaves",
    }
    origin = f"A network of lava-dl: {network.spec.classes} outputs, {network.parameter_count} parameters"
    published = publish_imported(
        network,
        repository_at(repository),
        name,
        lambda parity: imported_card(name, origin, network.spec, facts, {}, parity),
    )
    show_input(network.spec.input)
    published.show(console)
