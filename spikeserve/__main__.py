"""The command `spikeserve`, and `python -m spikeserve`: it imports only what the sub-command that is given needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from spikeserve.models import door
from spikeserve.models.errors import InvalidInput, install

REFUSED, USAGE, INTERRUPTED, CLOSED = 1, 2, 130, 141
PLUGINS_DIR = "--plugins-dir"
# The commands of the core: their room, which is also what they need, and a line for people.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("service", "serve the models of a repository over HTTP"),
    "check": ("service", "verify a repository, a bundle or a NIR file without serving it"),
    "keys": ("service", "make an API key and the line for the file of keys"),
    "fit": ("training", "train a network, and publish it as a bundle"),
    "evaluate": ("training", "run a trained network on its test samples, through any engine"),
    "export": ("training", "publish a run as a bundle, or write a bundle as NIR, ONNX, C or WebAssembly"),
    "import": ("training", "make a bundle of a network from elsewhere"),
    "verify": ("training", "compare a bundle with the framework's own module or with its C file, spike for spike"),
    "calibrate": ("training", "give a bundle what it needs to stop early"),
    "quantise": ("training", "round a bundle's weights to few bits"),
    "plugins": ("", "list what plugins bring, and what each lacks here"),
}
WORDS = {"serve": (), "keys": ("new-key",)}  # that say the command to its room, where these are not its name


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
    room, extra = COMMANDS.get(name, ("", ""))[0], ""
    try:
        if name.startswith(PLUGINS_DIR):
            if name != PLUGINS_DIR or not rest or not rest[0] or PLUGINS_DIR in rest[1:2]:
                return _refused(f"{PLUGINS_DIR}: expected one folder behind it, before the command", USAGE)
            os.environ[door.FOLDER] = str(Path(rest[0]).absolute())  # this process's, and its children's
            return run(rest[1:])
        if name in SHOWN:
            print(SHOWN[name]())
            return 0
        paths = [Path(each) for each in rest] if name == "check" else []
        if any(path.is_file() for path in paths) and not any(path.is_dir() for path in paths):
            room = "training"  # a file from elsewhere
        if room:
            target = door.of_kind("target").get(rest[0]) if name == "export" and rest else None
            extra = target.extra if target else {"service": "serve", "training": "train"}[room]
            words = WORDS.get(name, (name,))
            return int(import_module(f"spikeserve.{room}.__main__").main([*words, *rest]) or 0)
        if plugin := door.of_kind("command", COMMANDS).get(name):
            extra = plugin.extra
            if extra and plugin.missing:
                raise ModuleNotFoundError(name=plugin.missing[0])  # noqa: TRY301
            with door.quick_imports():
                command = plugin.load()
            return int(command(rest) or 0)
        known = [*COMMANDS, *door.of_kind("command", COMMANDS)]
        near = [f"did you mean '{each}'?" for each in get_close_matches(name, known, 1)]
        return _refused(f"'{name}' is no command, {(near or ['expected one of ' + ', '.join(known)])[0]}", USAGE)
    except InvalidInput as error:
        return _refused(str(error))
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == f"spikeserve.{room}":
            return _refused(f"{name} is not part of this installation, which lacks '{missing}'")
        if not extra or missing.partition(".")[0] == "spikeserve":
            raise  # a fault of the code
        return _refused(f"{name} needs the extra {extra}: {install(extra)} (there is no module '{missing}')")
    except KeyboardInterrupt:  # also while it is imported
        return INTERRUPTED


def usage() -> str:
    """Return the text of `--help`."""
    known = {name: said for name, (_, said) in COMMANDS.items()}
    try:
        known |= {name: plugin.says for name, plugin in door.of_kind("command", COMMANDS).items()}
    except InvalidInput as error:
        _refused(str(error))
    rows = "\n".join(f"  {name:{max(map(len, known))}}  {said}" for name, said in known.items())
    more = "`spikeserve COMMAND --help` lists its arguments, `spikeserve --version` prints the version."
    return f"usage: spikeserve [--plugins-dir FOLDER] COMMAND [arguments]\n\n{rows}\n\n{more}"


def plugins() -> str:
    """Return a table of what plugins bring: kind, name, where it comes from, what it is, and what it lacks."""
    known, faults = door.opened()
    rows = [("kind", "name", "comes with", "what it is", "missing")]
    rows += [(p.kind, p.name, p.package, p.says, ", ".join(p.missing)) for p in known.values()]
    for fault in faults:
        _refused(fault)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def version() -> str:
    """Return the version, which takes a look at the packages that are installed."""
    return str(import_module("spikeserve.models.version").VERSION)


SHOWN = {"-h": usage, "--help": usage, "--version": version, "plugins": plugins}


def _refused(sentence: str, status: int = REFUSED) -> int:
    print(f"spikeserve: {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
