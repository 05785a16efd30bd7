"""`python -m tests.zoo.table`: imports the zoo, and writes the table of README.md and the count of docs/interop.md.

With `--changed`, only those networks are imported whose outcome is not the one that stands there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.zoo.imported import Imported, take_in
from tests.zoo.networks import NETWORKS
from tests.zoo.registry import Entry
from tests.zoo.today import expected

PAGE = Path(__file__).with_name("README.md")
GUIDE = Path(__file__).parents[2] / "docs/interop.md"
HEAD = "| network | outcome | differing, per million | import, s | why not |\n|---|---|---|---|---|\n"
TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\|\n)*")
COUNTS = re.compile(r"^\*\*.*networks.*\*\*", re.MULTILINE)


def row(entry: Entry, came: Imported) -> str:
    """Return a network's line of the table; a file is not compared layer by layer, so that nothing is counted."""
    outcome = expected(entry)
    if not outcome.comes_in:
        return f"| `{entry.name}` | {outcome} | | | {outcome.refusal} |\n"
    differing = f"{1e6 * came.differing / came.neuron_steps:.3g}" if came.neuron_steps else "–"
    return f"| `{entry.name}` | {outcome} | {differing} | {came.seconds:.2f} | |\n"


def told(page: str) -> list[tuple[str, str, str]]:
    """Return the name, the outcome and the reason of each network in a page's table."""
    table = TABLE.search(page)
    lines = table[0].removeprefix(HEAD).splitlines() if table else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(name.strip("`"), outcome, reason) for name, outcome, _, _, reason in cells]


def counts() -> str:
    """Return the sentence of the guide: how many networks came in, and how."""
    outcomes = [str(expected(entry)) for entry in NETWORKS]
    kinds = ("exact", "close", "exact, another answer", "refused")
    said = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in kinds if kind in outcomes)
    return f"**{len(NETWORKS)} networks: {said}.**"


def main(changed: bool) -> None:
    """Import every network, or those that changed, and rewrite the table and the guide's sentence of counts."""
    page = PAGE.read_text()
    table = TABLE.search(page)
    lines = table[0].removeprefix(HEAD).splitlines(keepends=True) if table and changed else []
    kept = {name: (outcome, line) for (name, outcome, _), line in zip(told(page), lines, strict=False)}
    rows = []
    with TemporaryDirectory() as folder:
        (files := Path(folder) / "files").mkdir()
        take_in(NETWORKS[0], Path(folder) / "first", files)  # compiles the event engine, which is no network's time
        for entry in NETWORKS:
            outcome, line = kept.get(entry.name, ("", ""))
            if outcome != str(expected(entry)) or outcome == "refused":
                came = take_in(entry, Path(folder) / "repository", files) if expected(entry).comes_in else Imported()
                line = row(entry, came)
            rows.append(line)
    PAGE.write_text(TABLE.sub(lambda _: HEAD + "".join(rows), page))
    GUIDE.write_text(COUNTS.sub(counts(), GUIDE.read_text()))


if __name__ == "__main__":
    main(changed="--changed" in sys.argv)
