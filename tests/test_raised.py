"""Each sentence that the product raises stands in a test, but for those of a list that only gets shorter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.sources import ROOT, files

UNTESTED = ROOT / "tests/untested_sentences.txt"  # a file and the longest constant part of a sentence, on each line
ENOUGH = 20  # characters of a sentence's longest part, or all of a shorter one, that have to stand in a test
FEW = 8  # characters that are no sentence


def strings(node: ast.AST) -> Iterator[str]:
    """Yield the constant texts below a node, with what a regular expression escapes as it is matched."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield re.sub(r"\\([^\w\n])", r"\1", each.value)


def raised() -> Iterator[tuple[str, str]]:
    """Yield the file of each raised sentence, and its longest constant part."""
    for file in files("models", "service", "training", "spikeserve"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and "_sync" not in file:
                longest = max(strings(node.exc), key=len, default="").strip(" ,:;'")
                if len(longest) > FEW and " " in longest:
                    yield file, longest


def test_each_raised_sentence_stands_in_a_test_or_waits_in_the_list_for_one() -> None:
    tested = "\n".join(text for file in files("tests") for text in strings(ast.parse((ROOT / file).read_text())))
    untested = {
        f"{file}: {part}"
        for file, part in raised()
        if not any(part[at : at + ENOUGH] in tested for at in range(max(1, len(part) - ENOUGH + 1)))
    }
    waiting = UNTESTED.read_text().splitlines()
    assert sorted(untested - {*waiting}) == []  # name it in a test; do not add it to the list
    assert sorted({*waiting} - untested) == []  # tested by now, or gone: take it out of the list
