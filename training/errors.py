"""What goes wrong in training, in sentences.

TrainingError
├── InvalidData           a data set that cannot be trained on
├── InvalidConfig         a configuration that cannot be run
├── InvalidGraph          a NIR file that cannot be read, or a network of elsewhere that cannot be served
├── InvalidRules          a NIR file whose dialect, dt or reset is missing or wrong
├── InvalidEntry          a factory, state_dict or framework that cannot be had
├── NotConvertible        a network of PyTorch modules that holds what a spec cannot say, module by module
│   ├── OtherLayout       a forward that takes one of its input's axes for another
│   └── RepeatedStep      a forward that runs a module with a state more than once in a step
├── BrokenGradientChain   a loss that no weight has a part in
└── ExportRefused         a network whose engines do not agree, or that a server would refuse
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

from spikeserve.models.errors import SpikeserveError

Named = TypeVar("Named", bound=StrEnum)


class TrainingError(SpikeserveError):
    """The root of this package's errors."""


class InvalidData(TrainingError, ValueError):
    """A data set that cannot be trained on; the message names the array, the value and what was expected."""


class InvalidConfig(TrainingError, ValueError):
    """A configuration that cannot be run; the message names the field, the value and what was expected."""


def one_of(kind: type[Named], name: str, value: str) -> Named:
    """Return the member of an enum that `value` names; raises InvalidConfig, which lists all of them."""
    if value not in [*kind]:
        raise InvalidConfig(f"{name} is {value!r:.80}, expected {', '.join(kind)}")
    return kind(value)


class InvalidGraph(TrainingError, ValueError):
    """A graph that cannot be read or served; the message names the node, the value and what was expected."""


class InvalidRules(TrainingError, ValueError):
    """Rules that a NIR file lacks or gets wrong; the message lists them and what there is to name."""


class InvalidEntry(TrainingError):
    """A factory, state_dict or framework that cannot be had; the message names it and what was expected."""


class NotConvertible(TrainingError):
    """A network that cannot be converted; the message has a line for each module: path, class, field and why."""

    @classmethod
    def because(cls, refusals: Sequence[str]) -> NotConvertible:
        """Return the error that lists every refusal."""
        modules = "one thing" if len(refusals) == 1 else f"{len(refusals)} things"
        return cls("\n  ".join([f"the network holds {modules} that cannot be converted:", *refusals]))


class OtherLayout(NotConvertible):
    """A forward that treats an axis as if it were another: most likely it takes its input in another layout."""


class RepeatedStep(NotConvertible):
    """A forward that runs a module with a state more than once in a step; given one step, it most likely wants all."""


class BrokenGradientChain(TrainingError):
    """A loss without a grad_fn; the message says which usual causes to look at."""


class ExportRefused(TrainingError):
    """A network that is not exported: its engines do not agree, or the default engine refuses its bundle."""
