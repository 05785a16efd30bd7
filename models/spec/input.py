"""The input: a sample's shape, the range of its raw values, and the normalisation that makes currents of them.

Each of `low`, `high`, `scale` and `offset` is one number for all values; or a list with one for each channel, the first
axis of the shape; or a list with one for each value of a step, row by row.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from spikeserve.models.spec.events import EventBinning
from spikeserve.models.spec.parameters import Float32, FrozenModel, Positive32, Shape, Size, show

FEATURE_FIELDS = ("low", "high", "scale", "offset")
UNWRITTEN = ("events", "by_deviation", "feature_names")  # where absent
FURTHEST = 32.0  # in deviations of a sample: values further from its mean are taken for this


def _power_of_two(value: float) -> float:
    if math.frexp(value)[0] != 0.5:
        raise ValueError("expected a power of two, such as 0.015625")
    return value


PerFeature = Float32 | Annotated[tuple[Float32, ...], Field(min_length=1)]


class OutOfRange(StrEnum):
    """What happens to a raw value outside the declared range: the sample is refused, or the nearest end is taken."""

    REFUSE = "refuse"
    CLIP = "clip"


class Input(FrozenModel):
    """A sample's shape, the range of its raw values, and their normalisation, `scale * value + offset`.

    Where there is a `resolution`, the normalised value is rounded to a multiple of it, half to even. `events` says how
    what a sensor records becomes the steps of a sample, where the coding is `spikes`. With `by_deviation`, for coding
    `current`, each sample is then divided by its own deviation, whose logarithm is one channel more. `feature_names`
    are those of the values of a step, row by row. These three are not written where absent.
    """

    shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=4)]
    low: PerFeature = 0.0
    high: PerFeature = 1.0
    scale: PerFeature = 1.0
    offset: PerFeature = 0.0
    out_of_range: OutOfRange = OutOfRange.REFUSE
    resolution: Annotated[Positive32, AfterValidator(_power_of_two)] | None = None
    events: EventBinning | None = None
    by_deviation: bool = False
    feature_names: tuple[Annotated[str, Field(max_length=200)], ...] | None = None

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if value or name not in UNWRITTEN}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.events is not None:
            self.events.check_shape(self.shape)
        if self.feature_names is not None and len(self.feature_names) != math.prod(self.shape):
            raise ValueError(f"input: feature_names has {len(self.feature_names)}, expected one for each value")
        if self.by_deviation and self.resolution is None:
            raise ValueError("input: by_deviation is true without a resolution, expected one that its values round to")
        for name in FEATURE_FIELDS:
            numbers = getattr(self, name)
            if isinstance(numbers, tuple) and len(numbers) not in (self.shape[0], math.prod(self.shape)):
                raise ValueError(
                    f"input: {name} has {len(numbers)} numbers, but the shape {show(self.shape)} needs one, "
                    f"{self.shape[0]} (one for each channel) or {math.prod(self.shape)} (one for each value)"
                )
        low, high = np.broadcast_arrays(*self.range)
        for where in np.flatnonzero(~(low < high)):
            raise ValueError(
                f"input: low is {low.flat[where]:g} and high is {high.flat[where]:g}; low must be less than high"
            )
        if not all(map(math.isfinite, self.normalised_range)):
            raise ValueError("input: scale * value + offset is beyond float32 for a value of the declared range")
        return self

    @property
    def range(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The least and the greatest raw value, as arrays that broadcast to the shape."""
        return _spread(self.low, self.shape), _spread(self.high, self.shape)

    @property
    def arriving(self) -> Shape:
        """The shape of what the network gets of a sample, or of each of its steps."""
        return (self.shape[0] + self.by_deviation, *self.shape[1:])

    @property
    def factors(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The scale and the offset, as arrays that broadcast to the shape."""
        return _spread(self.scale, self.shape), _spread(self.offset, self.shape)

    @property
    def described_range(self) -> str:
        """The range in words, `0 to 16`; where each feature has its own, the widest."""
        low, high = self.range
        of_each = ", each feature with its own range" if low.ndim or high.ndim else ""
        return f"{low.min():g} to {high.max():g}{of_each}"

    def normalise(
        self, values: NDArray[np.float32], unit: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[np.float32]:
        """Return the normalised values of an array (…, *shape), each operation rounded; without `by_deviation`.

        Where `unit` is given, `values` (n,) are those of these units, indices into the flattened shape.
        """
        scale, offset = self.factors
        if unit is not None:
            spread = (each if each.ndim == 0 else np.broadcast_to(each, self.shape) for each in (scale, offset))
            scale, offset = (each if each.ndim == 0 else each.reshape(-1)[unit] for each in spread)
        scaled = scale * values + offset
        return scaled if self.resolution is None or self.by_deviation else self.rounded(scaled)

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return values rounded to multiples of the resolution, half to even."""
        step = np.float32(self.resolution or 1)
        return np.rint(values / step) * step

    @property
    def normalised_range(self) -> tuple[float, float]:
        """The least and the greatest value after normalisation, over all features, in float32 as coding does it.

        It takes no more memory than the fields do, however large the declared shape.
        """
        if self.by_deviation:
            return -FURTHEST, FURTHEST
        with np.errstate(over="ignore", invalid="ignore"):
            ends = [self.normalise(end) for end in self.range]
        return float(min(end.min() for end in ends)), float(max(end.max() for end in ends))


@lru_cache(maxsize=1024)
def _spread(numbers: float | tuple[float, ...], shape: Shape) -> NDArray[Any]:
    """Return a field's values as a read-only float32 array that broadcasts to `shape`."""
    array = np.array(numbers, np.float32)
    if array.ndim:
        array = array.reshape(shape if array.size == math.prod(shape) else (-1, *(1 for _ in shape[1:])))
    array.setflags(write=False)
    return array
