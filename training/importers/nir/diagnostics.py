"""What looks wrong about a neuron under the rules, though it can be read: warnings, which change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spikeserve.training.importers.nir.dialects import DIALECTS
from spikeserve.training.importers.nir.nodes import Cell
from spikeserve.training.importers.nir.rules import DialectName, GraphReset, Rules

MANY_STEPS = 1e4  # a time constant of so many steps is more likely given in steps itself


def diagnostics(cell: Cell, rules: Rules) -> Iterator[str]:
    """Yield a sentence for each parameter that is probably not meant as it stands."""
    name = cell.node.name
    for parameter in ("tau", "tau_mem", "tau_syn"):
        if cell.node.has(parameter):
            yield from _of_time(parameter, cell, rules)
    if cell.type in ("IF", "I") and rules.dialect is DialectName.NIR and rules.dt < 1 and np.all(cell.array("r") == 1):
        yield (
            f"node '{name}': its r is 1, so that dialect 'nir' multiplies what arrives by dt = {rules.dt:g}; Norse, "
            "sinabs and snnTorch add it as it is"
        )
    fires = cell.node.has("v_leak") and cell.node.has("v_threshold")
    if fires and np.any(cell.array("v_leak") > cell.array("v_threshold")):
        yield f"node '{name}': v_leak is above v_threshold, so that it fires by itself"
    if rules.reset is not GraphReset.VALUE and cell.node.has("v_reset") and cell.node.array("v_reset").any():
        yield (
            f"node '{name}': its v_reset is not 0, but reset is '{rules.reset}', which wins; 'value' resets to v_reset"
        )


def _of_time(parameter: str, cell: Cell, rules: Rules) -> Iterator[str]:
    name, values = cell.node.name, cell.node.positive(parameter)
    shortest, longest = float(values.min()), float(values.max())
    if DIALECTS[rules.dialect].counts_in_steps:
        if longest < 0.5:
            yield (
                f"node '{name}': {parameter} is {longest:g}, which looks like seconds, but dialect '{rules.dialect}' "
                "counts it in steps"
            )
    elif longest / rules.dt >= MANY_STEPS:
        yield (
            f"node '{name}': {parameter} is {longest:g} s, which is {longest / rules.dt:.3g} steps of dt; if the file "
            "counts in steps, give --dt 1"
        )
    elif shortest < rules.dt:
        yield f"node '{name}': {parameter} is {shortest:g} s, less than dt = {rules.dt:g}, so that a step overshoots"
