"""The model card of a network that came from another framework."""

from __future__ import annotations

from collections.abc import Sequence

from models.spec.parameters import show
from training.importers.frameworks.compare import LayerParity
from training.importers.frameworks.convert import Converted
from training.importers.frameworks.framework import Framework


def write_card(converted: Converted, framework: Framework, name: str, parity: Sequence[LayerParity]) -> str:
    """Return the Markdown of a network's card."""
    spec = converted.network.spec
    weights = sum(tensor.size for tensor in converted.network.tensors.values())
    rows = "\n".join(f"| {row.node} | `{row.module}` | {row.differing} of {row.neuron_steps} |" for row in parity)
    notes = "".join(f"\n{note}\n" for note in converted.notes)
    return f"""# {name}

A spiking network from {framework.name} {framework.version}: {len(spec.nodes)} nodes, {weights} parameters,
{spec.time_steps} time steps, {spec.coding} coding.

- **Input**: {show(spec.input.shape)} values from {spec.input.low:g} to {spec.input.high:g}
- **Classes**: {", ".join(spec.labels)}
- **Rule**: {framework.name} {framework.rule}; each node of the spec says its own
- **Accuracy**: not measured here, for no data came with the network
{notes}
## Agreement with {framework.name}

Neuron-steps in which the reference engine and {framework.name}'s own modules differ, on random inputs. Sums may round
in another order, so that a membrane within rounding of its threshold may fall otherwise.

| node | module | differing |
|---|---|---|
{rows}

## Limits

It knows only what it was trained on, and nothing here says what that was.
"""
