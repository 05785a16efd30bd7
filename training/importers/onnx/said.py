"""What the user says of an ONNX model, on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spikeserve.models.spec import Coding, Scores
from spikeserve.models.spec.onnx_contract import AxisLayout, OutputKind
from spikeserve.models.spec.parameters import Shape


@dataclass(frozen=True)
class Said:
    """What the user says of a model; None is for the file to say. `declared` are fields of the input but its shape."""

    input_shape: Shape | None
    labels: tuple[str, ...]
    time_steps: int | None
    any_time_steps: bool
    independent_rows: bool
    coding: Coding
    declared: dict[str, Any]
    layout: AxisLayout
    output_kind: OutputKind
    scores: Scores | None
    units: tuple[str, ...] | None
    input_name: str | None
    output_name: str | None
