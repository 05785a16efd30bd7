"""The commands for NIR files: `import nir` and `check`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.table import Table

from spikeserve.models.errors import SpikeserveError
from spikeserve.models.spec.parameters import show
from spikeserve.models.spec.rules import ResetTiming
from spikeserve.plugins.nir.convert import convert_file
from spikeserve.plugins.nir.dialects import DialectName, GivenRules, GraphReset, Rules
from spikeserve.plugins.nir.file import read
from spikeserve.plugins.nir.graph import Graph, GraphNode, flatten
from spikeserve.plugins.nir.topology import cycles
from spikeserve.training.commands.groups import console
from spikeserve.training.importers.options import OF_FILE, ImportedNetwork, Options, flag

# Stand in for rules that are missing, to find what is wrong with the graph under any.
ANY_RULES = Rules(DialectName.NIR, 1e-4, GraphReset.SUBTRACT)


def _show_graph(graph: Graph, version: str) -> None:
    table = Table("node", "type", "parameter", "shape", "range", title=f"NIR {version}")
    for node in graph.nodes.values():
        for row in _rows(node):
            table.add_row(*row)
    console.print(table)
    for before, after in graph.edges:
        console.print(f"  {before} → {after}")
    console.print(f"Cycles: {', '.join(' → '.join(cycle) for cycle in cycles(graph)) or 'none'}")


def _show_missing(missing: list[str]) -> None:
    if missing:
        console.print(
            f"Missing rules: {', '.join(missing)}; the file does not name them: give "
            f"{' '.join('--' + name for name in missing)} (dialects: {', '.join(DialectName)}; resets: "
            f"{', '.join(GraphReset)})"
        )


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


CANNOT_BE_SERVED = 1
RULES_ARE_MISSING = 3  # 2 is a command line that is wrong


class NirOptions(Options):
    """The options of a NIR file: the rules that it leaves out, where it does not name them itself."""

    dialect: DialectName | None = flag("Whose equations its neurons follow.", OF_FILE)
    dt: float | None = flag("Seconds per step.", OF_FILE)
    reset: GraphReset | None = flag("What a spike does to the membrane; value: v_reset.", OF_FILE)
    reset_timing: ResetTiming | None = flag("When it does.", "the file's, or the dialect's own")

    @property
    def rules(self) -> GivenRules:
        """The rules that are given."""
        return GivenRules(self.dialect, self.dt, self.reset, self.reset_timing)


class NirImporter:
    """Takes in a NIR file under a named dialect."""

    options = NirOptions
    source = "The NIR file."
    checked = ("input_shape", "dialect", "dt", "reset", "reset_timing")

    def convert(self, source: str, options: NirOptions) -> ImportedNetwork:
        """Return the network of a file; raises InvalidGraph, InvalidRules, InvalidSpec or InvalidInput."""
        path, file = Path(source), read(Path(source))
        rules = options.rules.over(GivenRules.of(file.graph.metadata)).complete()
        conversion = convert_file(file, rules, options)
        network = conversion.network
        facts = {
            "File": f"{path.name}, NIR {file.version}, SHA-256 `{file.sha256}`",
            "Dialect": str(rules.dialect),
            "dt": f"{rules.dt:g} s",
            "Reset": str(rules.reset),
            **({"Reset timing": str(rules.reset_timing)} if rules.reset_timing else {}),
        }
        repairs = "\n".join(f"- {sentence}" for sentence in conversion.warnings) or "Nothing."
        return ImportedNetwork(
            network,
            f"A spiking network from a NIR file: {network.spec.classes} outputs, {network.parameter_count} parameters",
            facts,
            {"What was repaired or looks wrong": repairs},
            warnings=conversion.warnings,
        )

    def check(self, source: str, options: NirOptions) -> int:
        """Show what stands in a file; return 1 if it cannot be served, 3 if only rules are missing."""
        opened, missing = read(Path(source)), list[str]()
        try:
            _show_graph(flatten(opened.graph), opened.version)
            named = options.rules.over(GivenRules.of(opened.graph.metadata))
            missing = named.missing
            conversion = convert_file(opened, ANY_RULES if missing else named.complete(), options)
        except SpikeserveError as error:
            _show_missing(missing)
            console.print(f"Cannot be served: {error}")
            return CANNOT_BE_SERVED
        for sentence in () if missing else conversion.warnings:
            console.print(f"Warning: {sentence}")
        _show_missing(missing)
        console.print("Can be served once these are named." if missing else "Can be served.")
        return RULES_ARE_MISSING if missing else 0


IMPORTER = NirImporter()
