"""What the zoo's table says of a network: what it is, how it is imported, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from spikeserve.models.spec import Coding
from spikeserve.models.spec.parameters import Shape
from tests.zoo.runs import Read, Run

FRAMEWORKS = (
    "snntorch",
    "spikingjelly",
    "norse",
    "sinabs",
    "torch",
)  # whose networks are modules; the others are files


@dataclass(frozen=True)
class Outcome:
    """What an import comes to: refused with a sentence that holds `refusal`, or in, with so many differing spikes.

    `answers` is False where all spikes are right but the class is read from something else than its author reads.
    """

    differing: int = 0
    refusal: str = ""
    answers: bool = True

    @property
    def comes_in(self) -> bool:
        return not self.refusal

    def __str__(self) -> str:
        if self.refusal:
            return "refused"
        if not self.answers:
            return "exact, another answer"
        return "close" if self.differing else "exact"


EXACT = Outcome()


def close(differing: int) -> Outcome:
    """Return the outcome of a network of which at most so many spikes differ from its framework's."""
    return Outcome(differing=differing)


def another_answer(differing: int = 0) -> Outcome:
    """Return the outcome of a network that spikes as it should, and whose answer is not its author's."""
    return Outcome(differing=differing, answers=False)


def refused(sentence: str) -> Outcome:
    """Return the outcome of a network that is refused with a sentence that holds this."""
    return Outcome(refusal=sentence)


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    `source` makes the module, the NIR graph, or the bytes of an ONNX file. `shape` is that of one step of one sample,
    `options` go to `import`. `batch` is the only batch that its author's forward takes, `answer` which of what it
    returns is read, and `start` where states begin that it draws. `run` and `read` say how its author runs it and
    what of its output is the answer, None where nobody can: a NIR graph that came from no module. `layers` is the
    module that a NIR graph came from. `probabilities` is set where an ONNX model gives them, and not scores.
    `weights` writes a file of another module's weights. `wanted` is what should come of it; `today.py` says where
    that is not so yet.
    """

    name: str
    framework: str
    source: Callable[[], Any]
    shape: Shape
    time_steps: int
    wanted: Outcome = EXACT
    coding: Coding = Coding.SPIKES
    batch: int | None = None
    answer: str | None = None
    start: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    run: Run | None = None
    read: Read | None = None
    layers: Callable[[], nn.Module] | None = None
    probabilities: bool = False
    weights: tuple[Callable[[], nn.Module], Callable[[nn.Module, Path], Path]] | None = None

    @property
    def place(self) -> str:
        """The entry as the command line wants it: package.module:factory."""
        return f"{self.source.__module__}:{self.source.__name__}"
