"""Print how large the project is, by package and room, beside its budget in pyproject.toml: `./scripts/size`.

A line of code is one that holds a token which is neither a comment nor part of a docstring. Beside Python there are
rows for the page and for the messages of gRPC; files that are made of others have a row of their own and no budget.
Counted too are the flags of all commands with the settings of the service, and the words of the pages and of the texts
at the root. `./scripts/size --lower` writes lower counts into the budget, which never rises by it.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from spikeserve.service.settings import with_protocols
from tests.apps import commands

ROOT = Path(__file__).parents[1]
PRODUCT = ("models", "service", "training", "plugins", "spikeserve")
MADE = (
    "spikeserve/_sync/",
    "plugins/grpc/messages.pyi",
    "plugins/grpc/health.pyi",
)  # of other files, so nobody writes them
SLACK = 10  # lines by which a room may lie below its budget, before the budget has to be lowered
BLANK = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def main(arguments: list[str]) -> int:
    """Print the table and where the budget is exceeded or has to fall; return 1 where it is or has."""
    project = ROOT / "pyproject.toml"
    budget = tomllib.loads(project.read_text())["tool"]["spikeserve"]["budget"]
    allowed = {**budget.pop("rooms"), **{name.replace("-", " "): number for name, number in budget.items()}}
    counts = rooms()
    for room, count in list(counts.items()):
        if (package := room.split("/")[0]) in PRODUCT:
            counts["lines of plugins" if package == "plugins" else "lines of core"] += count
            counts["lines of product"] += count
    counts["flags"] = len(flags())
    counts["words"] = sum(len((ROOT / name).read_text().split()) for name in pages())
    if arguments == ["--lower"]:
        allowed = {name: min(number, counts[name]) for name, number in allowed.items()}
        project.write_text(rewritten(project.read_text(), allowed))
    for name, count in counts.items():
        print(f"{count:>7,} {name}" + (f", of at most {allowed[name]:,}" if name in allowed else ""))
    above = [name for name, number in allowed.items() if counts[name] > number]
    without = [name for name in counts if name.split("/")[0] in PRODUCT and name not in allowed]
    below = [name for name, number in allowed.items() if "/" in name and counts[name] < number - SLACK]
    for names, fault in (
        (above, "Above the budget in pyproject.toml"),
        (without, "Without a budget in pyproject.toml"),
        (below, f"More than {SLACK} lines below the budget, which ./scripts/size --lower lowers"),
    ):
        if names:
            print(f"{fault}: {', '.join(names)}.")
    return int(bool(above or without or below))


def rewritten(project: str, allowed: Mapping[str, int]) -> str:
    """Return the text of pyproject.toml with these numbers in its budget."""
    head, section, budget = project.partition("[tool.spikeserve.budget]")
    for name, number in allowed.items():
        key = f'"{name}"' if "/" in name else name.replace(" ", "-")
        budget = re.sub(rf"(?m)^({re.escape(key)} = )\d+", rf"\g<1>{number}", budget)
    return head + section + budget


def tracked() -> list[str]:
    """Return the files that git knows, below the root."""
    listing = ["git", "ls-files", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def pages() -> list[str]:
    """Return the pages, and the texts at the root."""
    return [name for name in tracked() if name.endswith(".md") and ("/" not in name or name.startswith("docs/"))]


def rooms() -> Counter[str]:
    """Return the lines of code by room: `package/folder`, `package/.` for its own files; others by package."""
    counted = Counter[str]()
    for name in sorted(tracked()):
        text = (
            (ROOT / name).read_text(errors="replace")
            if name.endswith((".py", ".pyi", ".proto", ".js", ".html", ".css"))
            else ""
        )
        package, *folders = name.split("/")[:-1] or [""]
        if name.startswith(MADE):
            counted["made of other files"] += len(text.splitlines())
        elif name.startswith("service/http/page/"):
            counted["page"] += sum(bool(line.strip()) for line in text.splitlines())
        elif name.endswith(".proto"):
            counted["messages of gRPC"] += sum(bool(line.strip()) for line in text.splitlines())
        elif name.endswith(".py") and package:
            place = f"{package}/{folders[0] if folders else '.'}" if package in PRODUCT else f"lines of {package}"
            counted[place] += code(text)
    return counted


def code(source: str) -> int:
    """Return the number of lines that hold a token which is no comment and no docstring."""
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in BLANK:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(lines)


def flags() -> set[tuple[str, str]]:
    """Return the flags of all commands but `check` and `batch`, each as the command's first word and its name."""
    served = {("serve", name) for name in with_protocols().model_fields}
    others = {
        (words[0], name)
        for words, command in commands()
        for option in command.params
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--") and words[0] != "check"
    }
    return {("", "--version"), ("", "--plugins-dir")} | served | others


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
