"""What stands in a NIR file, and why it can or cannot be served, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from spikeserve.models.errors import SpikeserveError
from spikeserve.models.spec.parameters import show
from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.nir.convert import convert_file
from spikeserve.training.importers.nir.file import NirFile, read
from spikeserve.training.importers.nir.graph import Graph, GraphNode, flatten
from spikeserve.training.importers.nir.rules import DialectName, GivenRules, GraphReset, Rules
from spikeserve.training.importers.nir.topology import cycles

# Stand in for rules that are missing, to find what is wrong with the graph under any.
ANY_RULES = Rules(DialectName.NIR, 1e-4, GraphReset.SUBTRACT)


@dataclass(frozen=True)
class Report:
    """A file, its graph made flat, the rules that are missing, and what is wrong (None where nothing is)."""

    file: NirFile
    graph: Graph | None
    missing: list[str]
    warnings: tuple[str, ...]
    fault: str | None


def examine(path: Path, given: GivenRules, options: Options) -> Report:
    """Examine a file; raises InvalidGraph only where it is no NIR file at all."""
    file = read(path)
    graph, missing = None, []
    try:
        graph = flatten(file.graph)
        named = given.over(GivenRules.of(file.graph.metadata))
        missing = named.missing
        rules = ANY_RULES if missing else named.complete()
        conversion = convert_file(file, rules, options)
    except SpikeserveError as error:
        return Report(file, graph, missing, (), str(error))
    return Report(file, graph, missing, () if missing else conversion.warnings, None)


def show_report(report: Report, console: Console) -> None:
    """Print a report as tables and sentences."""
    if report.graph is not None:
        table = Table("node", "type", "parameter", "shape", "range", title=f"NIR {report.file.version}")
        for node in report.graph.nodes.values():
            for row in _rows(node):
                table.add_row(*row)
        console.print(table)
        for before, after in report.graph.edges:
            console.print(f"  {before} → {after}", highlight=False, markup=False)
        looped = [" → ".join(cycle) for cycle in cycles(report.graph)]
        console.print(f"Cycles: {', '.join(looped) or 'none'}", highlight=False, markup=False)
    for sentence in report.warnings:
        console.print(f"Warning: {sentence}", highlight=False, markup=False)
    if report.missing:
        wanted = " ".join("--" + name for name in report.missing)
        console.print(
            f"Missing rules: {', '.join(report.missing)}; the file does not name them: give {wanted} "
            f"(dialects: {', '.join(DialectName)}; resets: {', '.join(GraphReset)})",
            highlight=False,
            markup=False,
        )
    if report.fault:
        console.print(f"Cannot be served: {report.fault}", highlight=False, markup=False)
    elif report.missing:
        console.print("Can be served once these are named.")
    else:
        console.print("Can be served.")


def _rows(node: GraphNode) -> Iterator[tuple[str, str, str, str, str]]:
    rows = [(key, *_described(value)) for key, value in sorted(node.parameters.items())] or [("", "", "")]
    for index, row in enumerate(rows):
        yield (node.name, node.type, *row) if index == 0 else ("", "", *row)


def _described(value: object) -> tuple[str, str]:
    """Return the shape of a value, and its range or what it is."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not array.size:
        return "", str(value)[:40]
    shape = show(array.shape) if array.ndim else ""
    if array.size <= 3:
        return shape, ", ".join(f"{number:g}" for number in array.ravel().tolist())
    return shape, f"{array.min():g} to {array.max():g}"
