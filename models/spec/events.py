"""Events: how what a sensor records, in microseconds and pixels, becomes the steps and inputs of a `spikes` sample.

An event is dropped where the crop or the polarity leaves it out. Its cell is then the pixel, or unit, divided by `bin`,
and its step the whole `step_us` that have passed since the origin:

    step    (t - start) // step_us
    column  (x - crop's x) // bin
    row     (y - crop's y) // bin
    input   polarity, row and column; or polarity and unit (which is x)
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from spikeserve.models.spec.parameters import MAX_STEPS, FrozenModel, Shape, Size, show

MAX_STEP_US = 2**31 - 1  # microseconds: half of what the clock of a record counts, see `models.coding.records`
MAX_WIDTH, MAX_HEIGHT = 2**16, 2**15  # of a sensor: a record has 16 bits for x and 15 for y


class Polarity(StrEnum):
    """What becomes of an event's polarity, off (0) or on (1)."""

    CHANNELS = "channels"
    MERGED = "merged"
    ON = "on"
    OFF = "off"


class EventRule(StrEnum):
    """What several events of one input in one step are: one spike, or a value that is their number."""

    CLIP = "clip"
    COUNT = "count"


class Origin(StrEnum):
    """Where step 0 of a recording begins: at its first event, or at time 0 of its clock."""

    FIRST_EVENT = "first_event"
    ZERO = "zero"


class EventBinning(FrozenModel):
    """How a sensor's events become steps: `sensor` is (width, height) of a camera, or (units,)."""

    step_us: Annotated[int, Field(ge=1, le=MAX_STEP_US)]
    window_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1
    sensor: Annotated[tuple[Size, ...], Field(min_length=1, max_length=2)]
    crop: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)], Size, Size] | None = None
    bin: Size = 1
    polarity: Polarity = Polarity.CHANNELS
    rule: EventRule = EventRule.CLIP
    origin: Origin = Origin.FIRST_EVENT

    @model_validator(mode="after")
    def _lies_on_the_sensor(self) -> Self:
        most = (MAX_WIDTH, MAX_HEIGHT)[: len(self.sensor)]
        if any(size > limit for size, limit in zip(self.sensor, most, strict=True)):
            raise ValueError(f"sensor is {show(self.sensor)}, expected at most {show(most)}, as a record has no more")
        if self.crop is None:
            return self
        if len(self.sensor) == 1:
            raise ValueError(f"crop is {list(self.crop)}, but the sensor has {self.sensor[0]} units and no height")
        x, y, width, height = self.crop
        if x + width > self.sensor[0] or y + height > self.sensor[1]:
            raise ValueError(f"crop is {list(self.crop)}, expected x, y, width and height within {show(self.sensor)}")
        return self

    @property
    def area(self) -> tuple[int, int, int, int]:
        """The pixels that are used: x, y, width and height; of units, the height is 1."""
        return self.crop or (0, 0, self.sensor[0], self.sensor[1] if len(self.sensor) == 2 else 1)

    @property
    def channels(self) -> int:
        """The number of channels: one for each polarity, or one."""
        return 2 if self.polarity is Polarity.CHANNELS else 1

    @property
    def shape(self) -> Shape:
        """The shape of a step: (channels, height, width), or (channels, units)."""
        _, _, width, height = self.area
        cells = (-(-height // self.bin), -(-width // self.bin))
        return (self.channels, *cells[2 - len(self.sensor) :])

    def check_shape(self, shape: Shape) -> None:
        """Raise ValueError unless an input of `shape` is a step's: as it is, without a single channel, or flat."""
        own = self.shape
        if shape in (own, own[1:] if self.channels == 1 else own, (math.prod(own),)):
            return
        raise ValueError(
            f"input: the shape is {show(shape)}, but events of a sensor of {show(self.sensor)}"
            f"{'' if self.crop is None else f' with crop {list(self.crop)}'}, bin {self.bin} and polarity "
            f"'{self.polarity}' make {show(own)}"
        )

    def check_dt(self, dt: float | None) -> None:
        """Raise ValueError where `dt`, in seconds, is another time than `step_us`; dt is rounded to float32."""
        if dt is not None and not math.isclose(dt * 1e6, self.step_us, rel_tol=1e-6):
            raise ValueError(
                f"dt is {dt:g} s, but input.events.step_us is {self.step_us}, expected as many microseconds"
            )
