"""What the zoo's table says of a network: what it is, how it is imported, and whether it is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
class Entry:
    """A network of the zoo.

    `source` makes the module, or the NIR graph. `shape` is that of one step of one sample,
    `options` go to `import`. `batch` is the only batch that its author's forward takes, `answer` which of what it
    returns is read, and `start` where states begin that it draws. `run` and `read` say how its author runs it and
    what of its output is the answer, None where nobody can: a NIR graph that came from no module. `layers` is the
    module that a NIR graph came from. `refusal` is part of the sentence by which it is refused, "" where it comes in.
    """

    name: str
    framework: str
    source: Callable[[], Any]
    shape: Shape
    time_steps: int
    refusal: str = ""
    coding: Coding = Coding.SPIKES
    batch: int | None = None
    answer: str | None = None
    start: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    run: Run | None = None
    read: Read | None = None
    layers: Callable[[], nn.Module] | None = None

    @property
    def place(self) -> str:
        """The entry as the command line wants it: package.module:factory."""
        return f"{self.source.__module__}:{self.source.__name__}"
