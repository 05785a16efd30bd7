"""The command `spikeserve check`: verify bundles as a server does before it serves them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spikeserve.models.bundle import MANIFEST
from spikeserve.models.bundle.repository import ModelRepository, bundle_folder
from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.engine_choice import check_engine
from spikeserve.service.catalog.load_process import LoadProcesses
from spikeserve.service.errors import LoadFailed, Misconfigured
from spikeserve.service.inference.decoding.readers import prepare
from spikeserve.service.process.flags import read_settings
from spikeserve.service.settings import Settings, chosen_versions

REFUSED, USAGE, INTERRUPTED = 1, 2, 130
HELP = """\
usage: spikeserve check PATH [flags]

Verifies a repository, one model of it (<repository>/<name>) or one bundle (<repository>/<name>/<version>, or a model's
name: its newest version in ./repository, or of those that ship) as a server does before it serves them, and exits with
1 if any version is refused. Flags are those of `spikeserve serve`, such as --engine, --max-model-bytes or
--load-seconds; --versions is `all` here unless you give it.

A NIR file is checked before its import: `spikeserve check FILE --help` lists the flags for it.
"""

Versions = list[tuple[str, int]]  # models' names and versions


def main(arguments: Sequence[str]) -> int:
    """Verify what lies at a path, print a line for each version, and return the exit status."""
    if not arguments or arguments[0].startswith("-"):
        asked = list(arguments[:1]) in (["-h"], ["--help"])
        print(HELP, end="", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else USAGE
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))  # not 0: nothing is known to be right
    path, *flags = arguments
    if not any(flag.partition("=")[0] == "--versions" for flag in flags):
        flags += ["--versions", "all"]
    try:
        repository, listed = repository_at(Path(path))
        settings = read_settings([*flags, "--repository", str(repository)])
        check_engine(settings)
        versions = chosen(settings, listed)
    except SpikeserveError as error:
        print(f"spikeserve: {error}", file=sys.stderr)
        return USAGE
    try:
        processes = LoadProcesses(settings, prepare, waits=True)
        processes.prepare()
        processes.fork()
        right = asyncio.run(verify(processes, versions))
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"{right} of {len(versions)} can be served")
    return 0 if right == len(versions) else REFUSED


def repository_at(path: Path) -> tuple[Path, dict[str, list[int]]]:
    """Return the repository of a path, and the chosen versions; the path may be a repository, a model or a version.

    Raises Misconfigured, and BundleNotFound.
    """
    path = (path if path.is_dir() else bundle_folder(str(path))).resolve()
    try:
        if (path / MANIFEST).exists():
            name, version = path.parent.name, path.name
            if version not in map(str, ModelRepository(path.parent.parent).versions(name)):
                raise Misconfigured(f"path: '{path}' holds a bundle, expected it in <repository>/<name>/<version>/")
            return path.parent.parent, {name: [int(version)]}
        for repository, names in ((path, ModelRepository(path).names()), (path.parent, [path.name])):
            opened = ModelRepository(repository)
            if versions := {name: some for name in names if (some := opened.versions(name))}:
                return repository, versions
    except OSError as error:
        raise Misconfigured(f"path: '{error.filename}' cannot be read: {error.strerror}") from error
    raise Misconfigured(f"path: '{path}' holds no model, expected <name>/<version>/ with a {MANIFEST}")


def chosen(settings: Settings, listed: Mapping[str, Sequence[int]]) -> Versions:
    """Return the versions that the setting `versions` selects; raises Misconfigured if there are none."""
    versions = [(name, each) for name, some in listed.items() for each in chosen_versions(settings.versions, some)]
    if not versions:
        raise Misconfigured(f"versions: no model there has one of {settings.versions}")
    return versions


async def verify(processes: LoadProcesses, versions: Versions) -> int:
    """Verify versions side by side, print a line for each in their order, and return how many can be served."""
    right = 0
    tasks = [asyncio.create_task(processes.verify(name, version)) for name, version in versions]
    for (name, version), task in zip(versions, tasks, strict=True):
        try:
            outcome = f"ok, on the engine {(await task).engine}"
            right += 1
        except LoadFailed as error:
            outcome = str(error)
        print(f"{name} {version}: {outcome}", flush=True)
    return right
