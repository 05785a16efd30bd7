"""One recorded call of a function of torch, as the rules of functions see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spikeserve.training.importers.frameworks.axes import Unclear
from spikeserve.training.importers.frameworks.meaning import Answer, Meaning, Signal
from spikeserve.training.importers.frameworks.trace import Recorder


@dataclass(frozen=True)
class Call:
    """A function's name as rules have it, its arguments, what its tensors meant before it ran, and what it returned."""

    recorder: Recorder
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    meanings: dict[int, Signal | Answer]
    out: Any
    where: str

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place or its name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)

    def meaning(self, tensor: object) -> Signal | Answer | None:
        """Return what an argument meant before the call, None for one that does not depend on the input."""
        return self.meanings.get(id(tensor))

    @property
    def taken(self) -> tuple[Tensor, Signal | Answer]:
        """The first argument, and what it means; raises Unclear where it does not depend on the input."""
        first = self.argument(0, "input")
        meaning = self.meaning(first)
        if meaning is None:
            raise Unclear("takes the network's values in another place than the first")
        return first, meaning

    @property
    def signal(self) -> tuple[Tensor, Signal]:
        """The first argument and its signal; raises Unclear where it is read over time already."""
        first, meaning = self.taken
        if isinstance(meaning, Answer):
            raise Unclear("takes what is read over time already, which no readout does")
        return first, meaning


Rule = Callable[[Call], Meaning]
