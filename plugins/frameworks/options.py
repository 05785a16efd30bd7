"""What a network's code does not say of itself: the options of each framework's importer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from spikeserve.models.spec import Coding
from spikeserve.training.importers.options import InputShape, Options, flag

Several = Annotated[int, Field(ge=2)]


class Start(StrEnum):
    """Where states begin that a forward draws at random."""

    REST = "rest"


class FrameworkOptions(Options):
    """The options of a network of modules, which do not say their `input_shape` and `time_steps`."""

    input_shape: InputShape = Field(
        description="One step of one sample, such as 1,28,28.", json_schema_extra={"metavar": "<str>"}
    )
    time_steps: int = Field(description="Steps per sample.")
    coding: Coding | None = flag(
        "How a sample becomes steps.", "direct where your forward gives one sample to all steps, else spikes"
    )
    state_dict: Path | None = flag("Weights: .safetensors, or what torch.save or Lightning wrote.", "the network's own")
    rename: str | None = flag(
        'Old and new keys of these weights, as JSON or the file of it: {"features.*": "conv.*"}.',
        "what fits all keys",
        metavar="<json>",
    )
    batch: Several | None = flag("Samples that your forward is tried with, where it needs so many.", "3")
    answer: str | None = flag(
        "Which of what your forward returns is read: its place from 1 on, or its key.", "the first"
    )
    start: Start | None = flag("Let states that your forward draws at random begin at 0: rest.", "refuse them")
    publish_anyway: bool = flag(
        "Publish what differs from its framework by more than rounding, and say so.", "refuse", False
    )
