"""Print the size of the project, by package and room, beside the five budgets in pyproject.toml: `./scripts/size`.

A line of code holds a token which is neither a comment nor part of a docstring. Beside Python there are
rows for the page and for the messages of gRPC; generated files have a row of their own and no budget.
Counted too are the flags of all commands with the settings of the service, and the words of the pages and of the texts
at the root. A budget is a count rounded up: to the next 100, flags to the next 5. Rooms have none.
"""

import ast
import io
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
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
BLANK = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def main() -> int:
    """Print the table and the faults of the budgets; return 1 if there is a fault."""
    budgets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["spikeserve"]["budget"]
    counts = rooms()
    for room, count in list(counts.items()):
        if (package := room.split("/")[0]) in PRODUCT:
            counts["product"] += count
            counts["core"] += count if package != "plugins" else 0
    counts["flags"] = len(flags())
    counts["words"] = sum(len((ROOT / name).read_text().split()) for name in pages())
    for name, count in counts.items():
        print(f"{count:>7,} {name}" + (f", of at most {budgets[name]:,}" if name in budgets else ""))
    found = [fault for name, budget in budgets.items() if (fault := fault_of(name, counts[name], budget))]
    print("".join(f"{fault}\n" for fault in found), end="")
    return int(bool(found))


def fault_of(name: str, count: int, budget: int) -> str | None:
    """Return the sentence on a budget that is exceeded, is no round number, or is two steps or more above its count."""
    step = 5 if name == "flags" else 100
    if count > budget or budget % step or count <= budget - 2 * step:
        return (
            f"pyproject.toml: the budget {name} is {budget}, expected {-(-count // step) * step} for {count} counted."
        )
    return None


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
            place = f"{package}/{folders[0] if folders else '.'}" if package in PRODUCT else package
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
    sys.exit(main())
