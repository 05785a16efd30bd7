"""Small value types that nodes are made of: names, shapes, sizes and neuron parameters."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

Shape = tuple[int, ...]

PER_NEURON: Literal["per_neuron"] = "per_neuron"


class Frozen(BaseModel):
    """A value object: immutable, and a field that it does not know is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


LARGEST = float(np.finfo(np.float32).max)


def _fits_float32(value: float) -> float:
    if abs(value) > LARGEST:
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
Padding = Annotated[int, Field(ge=0)]
PaddingPair = Annotated[tuple[Padding, Padding], BeforeValidator(_pair)]
MOST_STEPS = 100_000  # that a network may run for, or a delay may last
Steps = Annotated[int, Field(ge=0, le=MOST_STEPS)]

# A neuron's parameter is a number, or "per_neuron": then the array lies with the weights as "<node>.<parameter>".
Parameter = Float32 | Literal["per_neuron"]
StepsParameter = Steps | Literal["per_neuron"]


def show(shape: Shape) -> str:
    """Write a shape as people do, `1×8×8`."""
    return "×".join(str(size) for size in shape) if shape else "scalar"
