"""Who is measured, and how each is started on a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from benchmarks.serving.networks import Served

PEERS = "benchmarks.serving.peers"

Kind = Literal["ours", "litserve", "fastapi", "floor"]


@dataclass(frozen=True)
class Contestant:
    """One server: a module and its arguments, in which {port}, {repository}, {bundle}, {bytes} are filled in."""

    kind: Kind
    setting: str
    module: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.kind}, {self.setting}" if self.setting else self.kind

    @property
    def missing(self) -> str | None:
        """The first package that it needs and that is not installed."""
        return next((package for package in self.needs if find_spec(package) is None), None)

    def command(self, served: Served, repository: Path, answer_bytes: int) -> list[str]:
        """Return the arguments for a model of a repository; the port is left to be filled in."""
        bundle = repository / served.name / "1"
        return [
            each.format(port="{port}", repository=repository, bundle=bundle, bytes=answer_bytes)
            for each in self.arguments
        ]

    def path(self, served: Served) -> str:
        """Return where it is asked."""
        return f"/models/{served.name}/predict" if self.kind == "ours" else "/predict"


def contestants(engine: str) -> list[Contestant]:
    """Return all of them; ours runs on `engine` and comes first."""
    ours = ("--port", "{port}", "--repository", "{repository}", "--engine", engine)
    return [
        Contestant("ours", engine, "service", ours),
        Contestant("floor", "", f"{PEERS}.floor", ("{bundle}", "{port}", "{bytes}")),
        Contestant("fastapi", "torch", f"{PEERS}.fastapi_torch", ("{bundle}", "{port}"), ("torch",)),
        *(_litserve(workers, batch) for workers in (1, 2) for batch in (1, 16)),
    ]


def _litserve(workers: int, batch: int) -> Contestant:
    setting = f"{workers} worker{'s' if workers > 1 else ''}, {f'batches of {batch}' if batch > 1 else 'no batches'}"
    arguments = ("{bundle}", "{port}", str(workers), str(batch))
    return Contestant("litserve", setting, f"{PEERS}.litserve_torch", arguments, ("torch", "litserve"))


def installed(all_of_them: Sequence[Contestant]) -> list[Contestant]:
    """Return those that can run here, and say why others cannot."""
    for each in all_of_them:
        if each.missing:
            print(f"left out: {each.title}, since {each.missing} is not installed", file=sys.stderr)
    return [each for each in all_of_them if not each.missing]
