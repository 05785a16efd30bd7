"""The groups of commands that more than one module adds to: `import` takes in a model of elsewhere, `export` gives out.

`export RUN` came first, and goes on without the name of a command: what names no command of `export` is a run.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup
from typing_extensions import override

RUN = "run"


class _RunUnlessNamed(TyperGroup):
    """A group whose command is `run` where the first word is the name of none."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [RUN, *args]
        return super().parse_args(ctx, args)


imports = typer.Typer(help="Make a bundle of a network from elsewhere.", no_args_is_help=True)
exports = typer.Typer(
    cls=_RunUnlessNamed, help="Publish a run (`export RUN`), or write a bundle as NIR.", no_args_is_help=True
)
