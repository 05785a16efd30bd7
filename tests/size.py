"""Print how large the project is, by package and room, beside its budget in pyproject.toml: `./scripts/size`.

Counted are lines of Python as they stand in the files that git knows, comments and blank ones among them, without files
that are made of others; flags of all commands and settings of the service; words of the pages and of the texts at the
root. A change that needs more than the budget raises it on purpose, and says why.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from spikeserve.service.settings import Settings
from spikeserve.training.__main__ import app as training

ROOT = Path(__file__).parents[1]
PRODUCT = ("models", "service", "training", "spikeserve")
MADE = "spikeserve/_sync/"  # by tests.unasync, so that nobody writes or reads it


def main() -> int:
    """Print the table and what exceeds the budget; return 1 where anything does."""
    budget = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["spikeserve"]["budget"]
    rooms, files = lines()
    for (package, room), count in sorted(rooms.items()):
        print(f"{count:>7,} {files[package, room]:>4} files  {package}/{room}")
    total = Counter[str]()
    for (package, _), count in rooms.items():
        total["lines of product" if package in PRODUCT else f"lines of {package}"] += count
        total["files of product"] += files[package, _] if package in PRODUCT else 0
    total["flags"] = len(flags())
    total["words"] = sum(len((ROOT / name).read_text().split()) for name in pages())
    print()
    for name, count in total.items():
        allowed = budget.get(name.replace(" ", "-"))
        print(f"{count:>7,} {name}" + (f", of at most {allowed:,}" if allowed else ""))
    above = [name for name, count in total.items() if count > budget.get(name.replace(" ", "-"), count)]
    if above:
        print(f"Above the budget in pyproject.toml: {', '.join(above)}.")
    return int(bool(above))


def tracked() -> list[str]:
    """Return the files that git knows, below the root."""
    listing = ["git", "ls-files", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def pages() -> list[str]:
    """Return the pages, and the texts at the root."""
    return [name for name in tracked() if name.endswith(".md") and ("/" not in name or name.startswith("docs/"))]


def lines() -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Return the lines and the files of Python, by package and room; a package's own files have no room."""
    counted, files = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for name in tracked():
        if name.endswith(".py") and "/" in name and not name.startswith(MADE):
            package, *rooms, _ = name.split("/")
            place = package, rooms[0] if rooms else ""
            counted[place] += len((ROOT / name).read_text().splitlines())
            files[place] += 1
    return counted, files


def flags() -> set[tuple[str, str]]:
    """Return the flags of all commands but `check` and `batch`, each as the command's first word and its name."""
    served = {("serve", name) for name in Settings.model_fields}
    commands: Mapping[str, Any] = typer.main.get_command(training).commands  # type: ignore[attr-defined]
    found = {(name, flag) for name, command in commands.items() if name != "check" for flag in flags_of(command)}
    return {("", "--version")} | served | found


def flags_of(command: Any) -> Iterator[str]:
    """Yield the flags of a command of training, and those of the commands below it."""
    for option in command.params:
        yield from (name for name in (*option.opts, *option.secondary_opts) if name.startswith("--"))
    for below in getattr(command, "commands", {}).values():
        yield from flags_of(below)


if __name__ == "__main__":
    sys.exit(main())
