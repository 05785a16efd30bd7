"""The groups of commands that more than one module adds to: `import` takes in a model of elsewhere."""

from __future__ import annotations

import typer

imports = typer.Typer(help="Make a bundle of a network from elsewhere.", no_args_is_help=True)
