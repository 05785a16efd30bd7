"""The model card of a network that came from a NIR file."""

from __future__ import annotations

from models.spec.parameters import show
from training.importers.nir.convert import Conversion
from training.importers.nir.file import NirFile
from training.importers.nir.rules import Rules
from training.report.parity import Parity


def write_card(
    name: str, file_name: str, file: NirFile, rules: Rules, conversion: Conversion, parity: list[Parity]
) -> str:
    """Return card.md."""
    spec = conversion.network.spec
    weights = sum(tensor.size for tensor in conversion.network.tensors.values())
    mended = "\n".join(f"- {sentence}" for sentence in conversion.warnings) or "Nothing."
    agreement = "\n".join(f"| {row.engine} | {row.differing_spikes} of {row.spikes} |" for row in parity)
    timing = f"\n- **Reset timing**: {rules.reset_timing}" if rules.reset_timing else ""
    return f"""# {name}

A spiking network that came as a NIR file: {spec.classes} outputs, {weights} parameters, {spec.time_steps} time steps,
{spec.coding} coding.

- **File**: {file_name}, NIR {file.version}, SHA-256 `{file.sha256}`
- **Dialect**: {rules.dialect}
- **dt**: {rules.dt:g} s
- **Reset**: {rules.reset}{timing}
- **Input**: {show(spec.input.shape)} values from {spec.input.low:g} to {spec.input.high:g}
- **Readout**: {spec.readout}

## What was mended or looks wrong

{mended}

## Agreement of the engines

Against the reference engine, on random samples.

| engine | differing spikes |
|---|---|
{agreement}

## Limits

The file says nothing about the data that the network was trained on, nor how well it does; the golden samples are
random, and show only that every engine computes the same.
"""
