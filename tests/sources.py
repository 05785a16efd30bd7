"""The project's own source files, what each imports, and what pyproject.toml requires."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OURS = (
    "spikeserve.models",
    "spikeserve.service",
    "spikeserve.training",
    "spikeserve.plugins",
)  # each a link to a folder of the root
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def files(*packages: str) -> list[str]:
    """Return the Python files of the packages, as paths from the root."""
    return sorted(path.relative_to(ROOT).as_posix() for name in packages for path in (ROOT / name).rglob("*.py"))


def imported_by(source: str, package: str) -> set[str]:
    """Return every module that `source`, a file of `package`, imports, wherever in the file, and each one's parents."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            modules |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {".".join(parts[: n + 1]) for parts in (name.split(".") for name in modules) for n in range(len(parts))}


@cache
def imports(file: str) -> frozenset[str]:
    """List the modules that a file imports, each with its parents; ours go by their folders, such as `models.spec`."""
    found = imported_by((ROOT / file).read_text(), ".".join(Path(file).parent.parts))
    ours = {name for name in found if name.startswith(OURS)}
    others = found - ours
    if ours and not any(name.startswith("spikeserve.") for name in others):
        others -= {"spikeserve"}  # which is there as their parent
    return frozenset(others | {name.removeprefix("spikeserve.") for name in ours})


def module_name(file: str) -> str:
    """Name the module of a file, by its folder: `spikeserve.models.spec` is `models.spec`."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def requirements(*extras: str) -> Iterator[Requirement]:
    """Return the requirements of the project with `extras`, its own extras followed."""
    for line in [
        *PROJECT["dependencies"],
        *(line for name in extras for line in PROJECT["optional-dependencies"][name]),
    ]:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            yield from requirements(*requirement.extras)
        else:
            yield requirement
