"""Scripts that complete the command `spikeserve`. They hold every word and flag, so that a shell need not ask Python.

To import the commands of training takes seconds, too long for each press of Tab. A command whose packages are missing
when a script is printed is completed by its name only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
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
    try:
        settings = import_module("spikeserve.service.settings").Settings.model_fields
        flags = ["--help", *(f"--{name.replace('_', '-')}" for name in settings)]
        found |= {"serve": Words(flags=flags), "check": Words(flags=flags)}
    except ModuleNotFoundError:
        pass
    try:
        batch = import_module("typer.main").get_command(import_module("spikeserve.service.batch.__main__").app)
        found |= dict(_words("batch", batch))
    except ModuleNotFoundError:
        pass
    try:
        program = import_module("typer.main").get_command(import_module("spikeserve.training.__main__").app)
    except ModuleNotFoundError:
        return found
    for name, command in COMMANDS.items():
        if command.package == "training":
            found |= dict(_words(name, program.commands[name]))
    return found


def _words(path: str, command: Any) -> Iterator[tuple[str, Words]]:
    """Yield what follows a click command, and each command below it; a group has the flags of its default too."""
    below: Mapping[str, Any] = getattr(command, "commands", {})
    named = [below["run"]] if "run" in below else []
    flags = [flag for each in (command, *named) for option in each.params for flag in _flags(option)]
    yield path, Words(list(below), ["--help", *flags])
    for name, each in below.items():
        yield from _words(f"{path} {name}", each)


def _flags(option: Any) -> list[str]:
    return [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")]


def bash(words: Table) -> str:
    """Return the script of bash. Where no word of it fits, bash completes a file's name."""
    return f"{_function(words)}complete -o default -F _spikeserve spikeserve\n"


def zsh(words: Table) -> str:
    """Return the script of zsh, which runs bash's."""
    return f"autoload -Uz compinit bashcompinit && compinit && bashcompinit\n{bash(words)}"


def _function(words: Table) -> str:
    longest_first = sorted(filter(None, words), key=lambda path: -len(path.split()))
    cases = [
        f'    "{path} "*) commands="{" ".join(words[path].commands)}" flags="{" ".join(words[path].flags)}" ;;'
        for path in longest_first
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
            "}\n",
        ]
    )


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
