"""The wheel of the project, and environments that it is installed in with the packages of an extra and no others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.sources import ROOT, requirements

PACKAGES = ("models", "service", "spikeserve", "training")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel in `folder`, from a copy, since a build writes beside its sources."""
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment, at `home`."""

    home: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / "bin/python"

    @property
    def command(self) -> Path:
        """The command that the wheel puts there."""
        return self.home / "bin/spikeserve"

    @property
    def packages(self) -> Path:
        """The folder of its packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.home / "lib" / version / "site-packages"

    def run(
        self, *arguments: str | Path, cwd: Path, program: Collection[str] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run its command, or its Python with `program`, and return how that ended."""
        start = [str(self.python), *program] if program else [str(self.command)]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [*start, *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, env=clean | variables, capture_output=True, text=True, timeout=120, check=False
        )


def install(wheel: Path, home: Path, *extras: str) -> Environment:
    """Install the wheel in a new environment, beside the packages that it needs with `extras` and no others.

    The packages are links to those that are installed here, so that nothing is fetched.
    """
    venv.create(home, with_pip=False)
    environment = Environment(home)
    into = [*PIP, "--python", str(environment.python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(into, check=True)
    for name in {name for each in needed(*extras) for name in top_level(each)}:
        (environment.packages / name).symlink_to(
            next(place for path in sys.path if (place := Path(path).resolve() / name).exists())
        )
    return environment


def needed(*extras: str) -> Iterator[Distribution]:
    """Yield what the project needs with `extras`, and what that needs in turn."""
    waiting, seen = list(requirements(*extras)), set()
    while waiting:
        requirement = waiting.pop()
        wanted = (requirement.name, *sorted(requirement.extras))
        if wanted in seen:
            continue
        seen.add(wanted)
        found = distribution(requirement.name)
        yield found
        for line in found.requires or ():
            below = Requirement(line)
            asked = ("", *requirement.extras)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in asked):
                waiting.append(below)


def top_level(found: Distribution) -> set[str]:
    """Return the names that a distribution has in site-packages."""
    return {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
