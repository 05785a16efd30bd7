"""The types of the nodes' fields: names, shapes, sizes and neuron parameters."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Shape = tuple[int, ...]

PER_NEURON: Literal["per_neuron"] = "per_neuron"
PER_CHANNEL: Literal["per_channel"] = "per_channel"


class FrozenModel(BaseModel):
    """An immutable value object; an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


MAX_FLOAT32 = float(np.finfo(np.float32).max)


def _fits_float32(value: float) -> float:
    if abs(value) > MAX_FLOAT32:
        raise ValueError(f"{value} does not fit into float32")
    return value


def _pair(value: object) -> object:
    """Read `3` as `(3, 3)`, as every framework does for square kernels."""
    return (value, value) if isinstance(value, int) else value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Float32 = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_fits_float32)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive32 = Annotated[Float32, Field(gt=0.0)]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]
SizePair = Annotated[tuple[Size, Size], BeforeValidator(_pair)]
Padding = Annotated[int, Field(ge=0, le=2**31 - 1)]
PaddingPair = Annotated[tuple[Padding, Padding], BeforeValidator(_pair)]
MAX_STEPS = 100_000  # of a run, and of a delay
Steps = Annotated[int, Field(ge=0, le=MAX_STEPS)]

# How many bits each weight of a connection has, its sign included; None is float32. A bundle says it only where it is
# given, so that older versions read all others.
WeightBits = Annotated[Literal[8, 7, 6, 4] | None, Field(exclude_if=lambda bits: bits is None)]

# A neuron's parameter is a number, or "per_neuron": then its array is the tensor "<node>.<parameter>".
Parameter = Float32 | Literal["per_neuron"]
StepsParameter = Steps | Literal["per_neuron"]
# Of a Scale: a number, one for each element, or one for each channel, which is the first axis.
ScaleParameter = Float32 | Literal["per_neuron", "per_channel"]


def show(shape: Shape) -> str:
    """Write a shape as text, `1×8×8`."""
    return "×".join(str(size) for size in shape) if shape else "scalar"
