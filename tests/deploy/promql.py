"""Queries in PromQL, taken apart as far as ours go: which metrics they read, by which labels, and within what."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

# What is no metric: functions, aggregations and the words between them.
AGGREGATIONS = frozenset({"sum", "max", "min", "count", "avg", "absent"})
WORDS = AGGREGATIONS | {
    *(
        "rate",
        "histogram_quantile",
        "time",
        "count_over_time",
        "min_over_time",
        "max_over_time",
        "increase",
        "label_values",
        "abs",
        "ln",
    ),
    *("by", "on", "ignoring", "and", "or", "unless", "offset"),
}

_TOKEN = re.compile(
    r"""(?P<range>\[[^\]]*\])|(?P<labels>\{[^}]*\})|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<number>[0-9.]+[a-z]*)
    |(?P<text>"[^"]*")|(?P<sign>[-+*/(),]|[<>=!]=?)|\s+""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Read:
    """A metric that a query reads, the labels that it is selected or grouped by, and the aggregations around it."""

    metric: str
    labels: frozenset[str]
    within: tuple[str, ...]


def reads(query: str) -> list[Read]:
    """Return the metrics that a query reads, in order; raises ValueError where it is not as ours are."""
    tokens = list(_tokens(query))
    found, around, at = [], [], 0
    pending: tuple[str, frozenset[str]] = ("", frozenset())  # what the next bracket opens
    while at < len(tokens):
        kind, text = tokens[at]
        at += 1
        if text in ("by", "on", "ignoring"):
            end = tokens.index(("sign", ")"), at)
            named = frozenset(name for sort, name in tokens[at:end] if sort == "name")
            at = end + 1
            # The labels of `by` are of what its brackets hold; those of `on` are of what stands on both sides, which is
            # grouped by them too.
            pending = (pending[0], named) if text == "by" else pending
        elif text == "(":
            around.append(pending)
            pending = ("", frozenset())
        elif text == ")":
            around.pop()
        elif kind == "name" and text in WORDS:
            pending = (text, frozenset())
        elif kind == "name":
            labels: set[str] = set().union(*(grouped for _, grouped in around))
            if at < len(tokens) and tokens[at][0] == "labels":
                labels |= set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", tokens[at][1]))
                at += 1
            if around and around[0][0] == "label_values":
                labels |= {name for sort, name in tokens[at:] if sort == "name"}
                at = len(tokens)
            found.append(Read(text, frozenset(labels), tuple(name for name, _ in around if name)))
    return found


def leaves(query: str) -> set[str]:
    """Return the labels that what comes out of a query has, so that a legend may name them.

    What stands behind the query's last `and on` or `unless on` only filters, and adds no label.
    """
    kept = re.match(r"(.*)\b(?:and|unless) on \(", query, re.DOTALL)
    shown = query if kept is None else kept[1]
    grouped = [set(re.findall(r"\w+", each)) for each in re.findall(r"\bby \(([^)]*)\)", shown)]
    return set.intersection(*grouped) - {"le"} if grouped else set()


def promtool(*arguments: str) -> None:
    """Run Prometheus' own checker, where it is installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: it comes with Prometheus, and in Debian's package of that name")
    ran = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _tokens(query: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:
            raise ValueError(f"{query!r}: '{query[at:]}' is nothing that is known here")
        at = found.end()
        if found.lastgroup:
            yield found.lastgroup, found[0]
