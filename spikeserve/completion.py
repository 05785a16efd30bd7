"""Scripts that complete the command `spikeserve`. They hold every word and flag, so that a shell need not ask Python.

To import the commands of training takes seconds, too long for each press of Tab. A command whose packages are missing
when a script is printed is completed by its name only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from spikeserve.__main__ import COMMANDS, USAGE

HELP = """\
usage: spikeserve completion SHELL

Prints a script for bash, zsh or fish. Keep it in a file that your shell reads at its start:

  spikeserve completion bash > ~/.local/share/bash-completion/completions/spikeserve
  spikeserve completion zsh > ~/.spikeserve.zsh        # and in ~/.zshrc: source ~/.spikeserve.zsh
  spikeserve completion fish > ~/.config/fish/completions/spikeserve.fish
"""


@dataclass(frozen=True)
class Words:
    """What may come next on a command line: names of commands, and flags."""

    commands: Sequence[str] = ()
    flags: Sequence[str] = field(default=("--help",))


Table = Mapping[str, Words]  # by the commands that were typed before, such as "import snntorch"; "" is none


def main(arguments: Sequence[str]) -> int:
    """Print the script of a shell, and return the exit status."""
    shells = {"bash": bash, "zsh": zsh, "fish": fish}
    if len(arguments) == 1 and arguments[0] in shells:
        print(shells[arguments[0]](table()), end="")
        return 0
    asked = list(arguments) in (["-h"], ["--help"])
    print(HELP, end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else USAGE


def table() -> Table:
    """Return all that can be completed with what is installed."""
    found = {"": Words(list(COMMANDS), ("--help", "--version")), "completion": Words(("bash", "zsh", "fish"))}
    with suppress(ModuleNotFoundError):
        settings = import_module("spikeserve.service.settings").Settings.model_fields
        flags = ["--help", *(f"--{name.replace('_', '-')}" for name in settings)]
        found |= {"serve": Words(flags=flags), "check": Words(flags=flags)}
    with suppress(ModuleNotFoundError):
        found |= _words("batch", _program("service.batch"))
    with suppress(ModuleNotFoundError):
        training = _program("training")
        for name in (name for name, command in COMMANDS.items() if command.package == "training"):
            found |= _words(name, training.commands[name])
    return found


def _program(package: str) -> Any:
    """Return the click command of a package."""
    return import_module("typer.main").get_command(import_module(f"spikeserve.{package}.__main__").app)


def _words(path: str, command: Any) -> dict[str, Words]:
    """Return the words after a click command, and after each below it; a group has the flags of its default too."""
    below: Mapping[str, Any] = getattr(command, "commands", {})
    options = [each for part in (command, below.get("run")) if part is not None for each in part.params]
    names = [name for option in options for name in (*option.opts, *option.secondary_opts)]
    found = {path: Words(list(below), ["--help", *(name for name in names if name.startswith("--"))])}
    for name, each in below.items():
        found |= _words(f"{path} {name}", each)
    return found


def bash(words: Table) -> str:
    """Return the script of bash. Where no word of it fits, bash completes a file's name."""
    longest_first = sorted(words, key=lambda path: -len(path.split()))
    cases = [
        f'    "{path} "*) commands="{" ".join(words[path].commands)}" flags="{" ".join(words[path].flags)}" ;;'
        for path in longest_first
        if path
    ]
    top = words[""]
    return "\n".join(
        [
            "_spikeserve() {",
            '  local current="${COMP_WORDS[COMP_CWORD]}" commands="" flags="" before="" index',
            "  for ((index = 1; index < COMP_CWORD; index++)); do",
            '    before="$before${COMP_WORDS[index]} "',
            "  done",
            '  case "$before" in',
            f'    "") commands="{" ".join(top.commands)}" flags="{" ".join(top.flags)}" ;;',
            *cases,
            "  esac",
            '  [[ "$current" == -* ]] && commands="$flags"',
            '  COMPREPLY=($(compgen -W "$commands" -- "$current"))',
            "}",
            "complete -o default -F _spikeserve spikeserve\n",
        ]
    )


def zsh(words: Table) -> str:
    """Return the script of zsh, which runs bash's."""
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{bash(words)}"


def fish(words: Table) -> str:
    """Return the script of fish."""
    lines = [
        "function __spikeserve_before",
        "  string join ' ' -- (commandline -opc)[2..] ''",
        "end",
        "complete -c spikeserve -e",
    ]
    for path, each in words.items():
        at = f"{path} " if path else ""
        here = f'test (__spikeserve_before | string collect) = "{at}"'
        within = f'string match -q -- "{at}*" (__spikeserve_before | string collect)' if path else here
        if each.commands:
            lines.append(f"complete -c spikeserve -n '{here}' -f -a '{' '.join(each.commands)}'")
        lines += [f"complete -c spikeserve -n '{within}' -l {flag.removeprefix('--')}" for flag in each.flags]
    return "\n".join([*lines, ""])
