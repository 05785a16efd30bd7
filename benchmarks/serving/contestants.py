"""Who is measured, and how each is started on a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.networks import Served
from benchmarks.serving.processes import ROOT
from benchmarks.serving.protocols import NATIVE, PLAIN, V2, Protocol

PEERS = "benchmarks.serving.peers"
OURS, FLOOR, FASTAPI, LITSERVE, MLSERVER = "ours", "floor", "fastapi", "litserve", "mlserver"

OUR_PYTHON = Path(sys.executable)
# MLServer needs an older FastAPI than our own service, and so has an environment of its own.
MLSERVER_PYTHON = ROOT / ".venv-mlserver/bin/python"

# A program that prints the first of its arguments that is no package of the interpreter that runs it.
FIND_MISSING = """
import importlib.util, sys
print(next((name for name in sys.argv[1:] if importlib.util.find_spec(name) is None), ""))
"""


@dataclass(frozen=True)
class Contestant:
    """One server: a module and its arguments, in which what stands in braces is filled in.

    {port}, {repository} and {bundle} say what to serve where, {scratch} is an empty folder for it alone, and {answer}
    is what the first contestant answers, for one that answers a constant.
    """

    server: str
    setting: str
    protocol: Protocol
    module: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    python: Path = OUR_PYTHON

    @property
    def title(self) -> str:
        """What the table calls it."""
        return f"{self.server}, {self.setting}" if self.setting else self.server

    @property
    def hindrance(self) -> str | None:
        """Why it cannot run here, or None if it can."""
        if not self.python.exists():
            return f"there is no {self.python.relative_to(ROOT)}, which ./scripts/bench-serving makes"
        command = [str(self.python), "-c", FIND_MISSING, *self.needs]
        missing = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return f"{missing} is not installed" if missing else None

    def command(self, served: Served, repository: Path, port: int, scratch: str, answer: bytes) -> list[str]:
        """Return the command that starts it on a port with a model of a repository."""
        bundle = repository / served.name / "1"
        filled = [
            each.format(port=port, repository=repository, bundle=bundle, scratch=scratch, answer=answer.decode())
            for each in self.arguments
        ]
        return [str(self.python), "-m", self.module, *filled]


def contestants(engine: str) -> list[Contestant]:
    """Return all of them; ours runs on `engine` and comes first."""
    ours = ("--port", "{port}", "--repository", "{repository}", "--engine", engine)
    return [
        Contestant(OURS, engine, NATIVE, "service", ours),
        Contestant(OURS, f"{engine} over v2", V2, "service", ours),
        Contestant(FLOOR, "", PLAIN, f"{PEERS}.floor", ("{port}", "{answer}")),
        Contestant(FASTAPI, "torch", PLAIN, f"{PEERS}.fastapi_torch", ("{bundle}", "{port}"), ("torch",)),
        *(_litserve(workers, batch) for workers in (1, 2) for batch in (1, 16)),
        *(_mlserver(workers, batch) for workers, batch in ((0, 1), (0, 16), (1, 1), (1, 16), (2, 1))),
    ]


def _litserve(workers: int, batch: int) -> Contestant:
    arguments = ("{bundle}", "{port}", str(workers), str(batch))
    needs = ("torch", "litserve")
    return Contestant(LITSERVE, _setting(workers, batch), PLAIN, f"{PEERS}.litserve_torch", arguments, needs)


def _mlserver(workers: int, batch: int) -> Contestant:
    arguments = ("{bundle}", "{port}", str(workers), str(batch), "{scratch}")
    needs = ("torch", "safetensors", "mlserver")
    module = f"{PEERS}.mlserver_torch"
    return Contestant(MLSERVER, _setting(workers, batch), V2, module, arguments, needs, MLSERVER_PYTHON)


def _setting(workers: int, batch: int) -> str:
    where = f"{workers} worker{'s' if workers > 1 else ''}" if workers else "in process"
    return f"{where}, {f'batches of {batch}' if batch > 1 else 'no batches'}"


def installed(all_of_them: Sequence[Contestant]) -> list[Contestant]:
    """Return those that can run here, and say why others cannot."""
    able = []
    for each in all_of_them:
        if hindrance := each.hindrance:
            print(f"left out: {each.title}, since {hindrance}", file=sys.stderr)
        else:
            able.append(each)
    return able
