"""What the table says of a network: what it is, how it is imported, and whether it is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from spikeserve.models.spec import Coding
from spikeserve.models.spec.parameters import Shape
from tests.zoo.runs import Read, Run


@dataclass(frozen=True)
class Entry:
    """A network that an importer takes in.

    `source` is a function of `module`, which makes the module of a framework, or what the importer's file is written
    from. `shape` is that of one step of one sample, `options` are further flags, and `names` the nodes that come of it.
    `batch` is the only batch that its author's forward takes, `answer` which of what it returns is read, and `start`
    where states begin that it draws. `run` and `read` say how its author runs it and what of its output is the answer,
    None where nobody can: a NIR graph that came from no module. `layers` is the function that makes the module which a
    file came from. `refusal` is part of the sentence by which it is refused, "" where it comes in.
    """

    name: str
    source: str
    shape: Shape
    time_steps: int
    framework: str
    module: str
    refusal: str = ""
    coding: Coding = Coding.SPIKES
    batch: int | None = None
    answer: str | None = None
    start: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    run: Run | None = None
    read: Read | None = None
    layers: str = ""
    close: float = 1e-4  # of probabilities and membranes; sums round in another order

    def function(self, name: str) -> Callable[[], Any]:
        """Return a function of its module, which is imported now: a framework takes seconds."""
        made: Callable[[], Any] = getattr(import_module(self.module), name)
        return made
