"""What reports share: Markdown tables, and figures beside their targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a table whose first `left` columns are words and whose others are figures."""
    rule = ["---" if column < left else "---:" for column in range(len(headings))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the geometric mean of one ratio or more."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def verdict(ratio: float, target: float) -> str:
    """Say whether a ratio is at least its target."""
    return "met" if ratio >= target else "short"
