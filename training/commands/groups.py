"""The group of commands `export`, to which more than one module adds, and the parameters that commands share.

`export RUN` came first, and goes on without the name of a command: what names no command of `export` is a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup
from typing_extensions import override

from spikeserve.models.bundle.repository import bundle_folder

RUN = "run"

console = Console(soft_wrap=True, highlight=False, markup=False)  # a path or a sentence stays on one line as it is

RepositoryOption = Annotated[
    str, typer.Option(help="The model repository to publish to: a folder, or a URL such as s3://bucket/models.")
]
BUNDLE = "A bundle's folder, or a model's name: its newest version in ./repository, or of those that ship."
BundleArgument = Annotated[Path, typer.Argument(help=BUNDLE, parser=bundle_folder, show_default=False)]
ModelNameOption = Annotated[str, typer.Option(help="The model's name.", show_default=False)]


class _RunUnlessNamed(TyperGroup):
    """A group whose command is `run` where the first word is the name of none."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [RUN, *args]
        return super().parse_args(ctx, args)


exports = typer.Typer(
    cls=_RunUnlessNamed,
    help="Publish a run (`export RUN`), or write a bundle as NIR, C or WebAssembly.",
    no_args_is_help=True,
)
