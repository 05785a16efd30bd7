"""The command `spikeserve`, and `python -m spikeserve`: it imports only what the sub-command that is given needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

REFUSED, USAGE, INTERRUPTED, CLOSED = 1, 2, 130, 141
VERSION = "--version"
# What each package needs, an extra of pyproject.toml.
EXTRAS = {"service": "serve", "plugins.local": "serve", "training": "train", "plugins.ray": "ray"}
EXTRAS |= {"plugins.c": "export"}


@dataclass(frozen=True)
class Command:
    """A sub-command: the `main` of `package` runs it, and is given `words` and then the user's arguments."""

    summary: str
    package: str
    words: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "models": Command("list the models that ship, or those of a repository", "plugins.gallery.commands", ("models",)),
    "pull": Command("copy a model of that list to a repository here", "plugins.gallery.commands", ("pull",)),
    "run": Command("answer samples on standard input, without a server", "plugins.local"),
    "serve": Command("serve the models of a repository over HTTP", "service"),
    "check": Command("verify a repository, a bundle or a NIR file without serving it", "service", ("check",)),
    "keys": Command("make an API key and the line for the file of keys", "service", ("new-key",)),
    "fit": Command("train a network, and publish it as a bundle", "training", ("fit",)),
    "evaluate": Command("run a trained network on its test samples, through any engine", "training", ("evaluate",)),
    "export": Command("publish a run as a bundle, or write a bundle as NIR", "training", ("export",)),
    "import": Command("make a bundle of a network from elsewhere", "training", ("import",)),
    "verify": Command("compare a bundle with the framework's own module, spike for spike", "training", ("verify",)),
    "report": Command("count a bundle's operations", "training", ("report",)),
    "calibrate": Command("give a bundle what it needs to stop early", "training", ("calibrate",)),
    "quantise": Command("round a bundle's weights to few bits", "training", ("quantise",)),
    "convert": Command("make a trained network without spikes spike", "training", ("convert",)),
    "push": Command("copy a bundle to a repository elsewhere, such as a bucket", "plugins.gallery.commands", ("push",)),
    "batch": Command("predict files of samples, in parts, on a Ray cluster", "plugins.ray"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command, by default that of this process, and return its exit status; a closed pipe ends it quietly."""
    try:
        try:
            return run(arguments)
        finally:
            (sys.stdout or sys.stderr).flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        return CLOSED


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command as `main` does; raises BrokenPipeError where nobody reads its output any more."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == VERSION:
        print(import_module("spikeserve.models.version").VERSION)
        return 0
    if name not in COMMANDS:
        near = [f"did you mean '{each}'?" for each in get_close_matches(name, COMMANDS, 1)]
        return _refused(f"'{name}' is no command, {(near or ['expected one of ' + ', '.join(COMMANDS)])[0]}", USAGE)
    package = package_of(name, rest)
    extra = EXTRAS.get(package)
    try:
        module = import_module(f"spikeserve.{package}.__main__" if extra else f"spikeserve.{package}")
        return int(module.main([*COMMANDS[name].words, *rest]) or 0)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == f"spikeserve.{package}":
            return _refused(f"{name} is not part of this installation, which lacks '{missing}'")
        if extra is None or missing.partition(".")[0] == "spikeserve":
            raise  # a fault of the code
        how = import_module("spikeserve.models.errors").install(extra)
        return _refused(f"{name} needs the extra {extra}: {how} (there is no module '{missing}')")
    except KeyboardInterrupt:  # also while it is imported
        return INTERRUPTED


def package_of(name: str, arguments: Sequence[str]) -> str:
    """Return the package that runs a sub-command: for `check` of a NIR file and `export c` another one than usual."""
    if name == "export" and arguments[:1] in (["c"], ["wasm"]):
        return "plugins.c"
    paths = [Path(each) for each in arguments] if name == "check" else []
    if any(path.is_file() for path in paths) and not any(path.is_dir() for path in paths):
        return "training"
    return COMMANDS[name].package


def usage() -> str:
    """Return the text of `--help`."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    more = "`spikeserve COMMAND --help` lists its arguments, `spikeserve --version` prints the version."
    return f"usage: spikeserve COMMAND [arguments]\n\n{rows}\n\n{more}"


def _refused(sentence: str, status: int = REFUSED) -> int:
    print(f"spikeserve: {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
