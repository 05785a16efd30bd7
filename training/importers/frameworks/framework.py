"""What a framework's file says: which modules it has, what each becomes, and how one runs over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module, metadata
from types import MappingProxyType
from typing import NamedTuple

from packaging.version import Version
from torch import Tensor, nn

from spikeserve.training.errors import InvalidEntry
from spikeserve.training.importers.frameworks.genuine import base_of, changes
from spikeserve.training.importers.frameworks.layer import Rule
from spikeserve.training.importers.frameworks.releases import Releases

NAMES = ("snntorch", "spikingjelly", "norse", "sinabs", "torch", "spikeserve")


ONE = Releases(())  # of a framework whose arithmetic has not changed


class Takes(Enum):
    """What a module with a state takes: the axes before a sample's, t for time and b for the batch."""

    STEP = ("b",)
    TIME_FIRST = ("t", "b")
    BATCH_FIRST = ("b", "t")
    MERGED = ("bt",)
    SAMPLE = ()  # a sample that is the same at all steps: it begins from rest, and gives all steps first


class Run(NamedTuple):
    """What a module made of an input (time_steps, batch, *shape), and its membrane at each step where it shows one.

    `spikes` are those of a neuron whose output is a multiple of them.
    """

    output: Tensor
    membrane: Tensor | None = None
    spikes: Tensor | None = None


@dataclass(frozen=True)
class Framework:
    """A framework as an importer sees it; types are matched exactly, since a subclass may compute something else.

    `containers` pass a tensor through their children in order. `run` takes one module from rest over all steps of
    (time_steps, batch, *shape), by the module's own code. `takes` says what a module with a state takes, None of one
    without. `membranes` names the attributes in which its neurons keep theirs, of the last step or of all that they
    just ran. `unwrap` takes the network out of what holds it. `installed` is the version of what is no package of its
    own. `releases` says which of its versions compute alike.
    """

    name: str
    rule: str
    containers: frozenset[type[nn.Module]]
    rules: Mapping[type[nn.Module], Rule]
    run: Callable[[nn.Module, Tensor], Run]
    takes: Callable[[nn.Module], Takes | None] = lambda _: None
    membranes: tuple[str, ...] = ()
    unwrap: Callable[[nn.Module], nn.Module] = lambda module: module
    installed: str | None = None
    releases: Releases = ONE

    def kind(self, module: nn.Module) -> type[nn.Module] | None:
        """Return the class whose rule converts a module: its own, or the one that it only constructs otherwise.

        A subclass that defines no method but `__init__` computes what its base does, from fields that the rule reads.
        """
        return base_of(type(module), self.rules.__contains__)

    def passes_on(self, module: nn.Module) -> bool:
        """Return whether a module only passes a tensor through its children in order, as its class says."""
        kind = base_of(type(module), lambda kind: kind in self.containers or kind is nn.Sequential)
        return kind is not None and not changes(module, alone=True)

    @property
    def version(self) -> str:
        """The version that is installed."""
        return self.installed or metadata.version(self.name)

    def find_release(self, given: str) -> Version:
        """Return the release that `--trained-with` names; raises InvalidEntry."""
        return self.releases.find(self.name, given, self.version)

    def arithmetic(self, trained_with: Version | None = None) -> str:
        """Return the versions that compute as one does, such as `snntorch 0.6.0 to 0.7.0`, or as the installed one."""
        return f"{self.name} {self.releases.span(trained_with or Version(self.version))}"


def find(name: str) -> Framework:
    """Return a framework by name; raises InvalidEntry where it is unknown or not installed here."""
    if name not in NAMES:
        raise InvalidEntry(f"framework: '{name}' is not one, expected {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    try:
        framework: Framework = import_module(f"spikeserve.training.importers.frameworks.{name}").FRAMEWORK
    except ImportError as error:
        raise InvalidEntry(f"framework: {name} cannot be imported here: {error}; pip install {name}") from error
    except AttributeError as error:  # a release that lacks a class which a rule is for
        raise InvalidEntry(
            f"framework: {name} {metadata.version(name)} is too old: {error}; pip install --upgrade {name}"
        ) from error
    return framework


def folded(module: nn.Module, steps: Tensor) -> Run:
    """Run a module without state over all steps at once, as one long batch."""
    if isinstance(module, nn.Flatten):  # which axes are a sample's depends on whether its caller has one for time
        return Run(steps.flatten(2))
    return Run(module(steps.flatten(0, 1)).unflatten(0, steps.shape[:2]))


def merged(*rules: Mapping[type[nn.Module], Rule]) -> Mapping[type[nn.Module], Rule]:
    """Return several tables of rules as one."""
    return MappingProxyType({kind: rule for table in rules for kind, rule in table.items()})
