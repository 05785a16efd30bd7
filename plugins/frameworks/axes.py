"""Which axes of a traced tensor are time, which the batch and which a sample's, however a forward arranges them.

An axis of a tensor is a tuple of parts, outermost first: time and batch that were merged are one axis of two parts, an
axis that was unsqueezed has none. Each operation on axes is a method that returns the axes of its result, and raises
Unsupported with half a sentence where they cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from torch import Tensor

from spikeserve.models.spec.parameters import Shape, show
from spikeserve.plugins.frameworks.nouns import Unsupported


class AxisKind(Enum):
    """What an axis is of."""

    TIME = "time"
    BATCH = "batch"
    SAMPLE = "sample"


@dataclass(frozen=True)
class AxisPart:
    """A whole axis of time, batch or a sample; `place` is its place among a sample's axes, in row-major order."""

    kind: AxisKind
    size: int
    place: int = 0


Axis = tuple[AxisPart, ...]


@dataclass(frozen=True)
class Axes:
    """The axes of a traced tensor."""

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, leading: Sequence[Axis], sample: Sequence[int]) -> Axes:
        """Return axes that begin with `leading` and go on with a sample's own."""
        return cls((*leading, *((AxisPart(AxisKind.SAMPLE, size, place),) for place, size in enumerate(sample))))

    def __str__(self) -> str:
        names = {AxisKind.BATCH: "batch="}
        return ", ".join("·".join(f"{names.get(part.kind, '')}{part.size}" for part in axis) for axis in self.axes)

    def around(self, sample: Sequence[int]) -> Axes:
        """Return the same axes of time and batch with those of a sample of another shape."""
        return Axes.of(self.leading, sample)

    def time_before(self) -> Axes:
        """Return axes of which time is the last with it before that of a sample, and those back."""
        return self.permuted((0, 2, 1))

    def size(self, place: int) -> int:
        """Return the size of an axis."""
        return math.prod(part.size for part in self.axes[place])

    @property
    def shape(self) -> Shape:
        """The shape of the tensor."""
        return tuple(self.size(place) for place in range(len(self.axes)))

    @property
    def parts(self) -> tuple[AxisPart, ...]:
        """All parts, outermost first."""
        return tuple(part for axis in self.axes for part in axis)

    @property
    def time(self) -> int | None:
        """The axis that is time and nothing else, None where there is none."""
        return next(
            (place for place, axis in enumerate(self.axes) if [part.kind for part in axis] == [AxisKind.TIME]), None
        )

    @property
    def time_last(self) -> bool:
        """Whether the axes are those of convolutions over time: the batch, one of a sample, and time."""
        return len(self.axes) == 3 and self.time == 2

    @property
    def timed(self) -> bool:
        """Whether time is among the axes, merged with another or not."""
        return any(part.kind is AxisKind.TIME for part in self.parts)

    @property
    def leading(self) -> tuple[Axis, ...]:
        """The axes of time and batch, which come before a sample's."""
        return self.axes[: self._split]

    @property
    def sample(self) -> Shape:
        """The shape of one sample in this tensor; raises Unsupported where the axes do not tell it."""
        if any(part.kind is AxisKind.SAMPLE for axis in self.leading for part in axis):
            raise Unsupported("runs along an axis of time or of samples too, and each step has to be by itself")
        return tuple(math.prod(part.size for part in axis) for axis in self.axes[self._split :])

    @property
    def order(self) -> tuple[int, ...]:
        """The order of a sample's parts: which of them, as they lie in memory, comes first, second and so on."""
        places = [part.place for part in self.parts if part.kind is AxisKind.SAMPLE]
        return tuple(sorted(places).index(place) for place in places)

    @property
    def refined(self) -> Shape:
        """The sizes of a sample's parts, as they lie in memory."""
        own = sorted((part for part in self.parts if part.kind is AxisKind.SAMPLE), key=lambda part: part.place)
        return tuple(part.size for part in own)

    @property
    def _split(self) -> int:
        """The number of axes up to the last that holds time or batch."""
        lead = [place for place, axis in enumerate(self.axes) if any(part.kind is not AxisKind.SAMPLE for part in axis)]
        return lead[-1] + 1 if lead else 0

    def permuted(self, order: Sequence[int]) -> Axes:
        """Return the axes in another order."""
        return Axes(tuple(self.axes[place] for place in order))

    def inserted(self, place: int, axis: Axis = ()) -> Axes:
        """Return the axes with one more at `place`."""
        return Axes((*self.axes[:place], axis, *self.axes[place:]))

    def without(self, place: int) -> Axes:
        """Return the axes without the one at `place`."""
        return Axes((*self.axes[:place], *self.axes[place + 1 :]))

    def of_steps(self, steps: int) -> Axes:
        """Return the axes with another number of steps."""
        return Axes(tuple((AxisPart(AxisKind.TIME, steps),) if k == self.time else a for k, a in enumerate(self.axes)))

    def reshaped(self, shape: Sequence[int]) -> Axes:
        """Return the axes after a reshape to `shape`, which merges parts, and splits none but a sample's."""
        room = len(shape) + 1  # for the places of what is split off, each behind the part that it comes from
        parts, axes = [replace(part, place=part.place * room) for part in self.parts], list[Axis]()
        for size in shape:
            taken: list[AxisPart] = []
            if size == 1 and parts and parts[0].size == 1:
                taken.append(parts.pop(0))
            while math.prod(part.size for part in taken) < size:
                if not parts:
                    raise Unsupported(f"reshapes to {show(tuple(shape))}, which has no whole axes")
                taken.append(_fitted(parts, size // math.prod(part.size for part in taken)))
            if math.prod(part.size for part in taken) != size:
                raise Unsupported(f"reshapes to {show(tuple(shape))}, which splits the axis of time or batch")
            axes.append(tuple(taken))
        if any(part.kind is not AxisKind.SAMPLE for part in parts):
            raise Unsupported(f"reshapes to {show(tuple(shape))}, in which the axis of time or batch is lost")
        return Axes(tuple(axes))._numbered()

    def _numbered(self) -> Axes:
        """Return the axes with the places of a sample's parts counted from 0."""
        places = sorted(part.place for part in self.parts if part.kind is AxisKind.SAMPLE)

        def numbered(part: AxisPart) -> AxisPart:
            return replace(part, place=places.index(part.place) if part.kind is AxisKind.SAMPLE else 0)

        return Axes(tuple(tuple(map(numbered, axis)) for axis in self.axes))

    def time_first(self, values: Tensor) -> Tensor:
        """Return a tensor of these axes as (time_steps or 1, batch, *sample)."""
        order = {AxisKind.TIME: 0, AxisKind.BATCH: 1, AxisKind.SAMPLE: 2}
        parts, sample = self.parts, self.sample
        ordered = sorted(range(len(parts)), key=lambda place: order[parts[place].kind])  # a sample's stay as they are
        split = values.reshape([part.size for part in parts]).permute(ordered)
        steps, batch = (
            math.prod(part.size for part in parts if part.kind is kind) for kind in (AxisKind.TIME, AxisKind.BATCH)
        )
        return split.reshape(steps, batch, *sample)


def _fitted(parts: list[AxisPart], room: int) -> AxisPart:
    """Take the first part, or of a sample's as much as fits; the rest of it comes right behind, in memory too."""
    part = parts.pop(0)
    if part.size <= room or part.kind is not AxisKind.SAMPLE or room == 0 or part.size % room:
        return part
    parts.insert(0, AxisPart(AxisKind.SAMPLE, part.size // room, part.place + 1))
    return AxisPart(AxisKind.SAMPLE, room, part.place)
