"""The kinds of plugins: for each a Protocol, which is what its `at` has to name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from spikeserve.models.coding import Inputs
    from spikeserve.models.engines import Engine, RunResult
    from spikeserve.models.spec.network import Network


class Importer(Protocol):
    """Takes a network in from elsewhere, for `import NAME SOURCE`.

    `options` extends `training.importers.options.Options`; each of its fields is a flag. `source` says in a sentence
    what SOURCE is. `convert` returns an `ImportedNetwork` of that module: the network, and what its card says of it.

    `checked` names the options of `check SOURCE`. Where there are any, `check` shows what stands in a file, and returns
    the exit status.

    `compared` names those of `verify --against NAME:SOURCE`. Where there are any, `compare` runs a network and SOURCE's
    own module on the same inputs, shows where they differ, and returns whether they do. All raise SpikeserveError.
    """

    options: type[Any]
    source: str
    checked: Sequence[str]
    compared: Sequence[str]

    def convert(self, source: str, options: Any) -> Any: ...  # noqa: D102
    def check(self, source: str, options: Any) -> int: ...  # noqa: D102
    def compare(self, network: Network, source: str, typed: Mapping[str, Any]) -> bool: ...  # noqa: D102


class Target(Protocol):
    """Writes a network for elsewhere, for `export NAME BUNDLE PATH`, and runs it there, for `verify --against NAME`.

    `write` returns a line for each file that it wrote; `path`, and what it takes after that, are an argument and
    options of the command, as typer reads them. `run` returns the answers and the rasters; a target may be without it.
    A module with these functions is a target. Both raise SpikeserveError.
    """

    def write(self, network: Network, name: str, version: int, path: Path) -> Sequence[str]: ...  # noqa: D102
    def run(self, network: Network, inputs: Inputs) -> RunResult: ...  # noqa: D102


class Reader(Protocol):
    """Reads a file that a user names, or has on standard input (then it has no suffix); never one of a request.

    Returns arrays by name. Of a recording they are `t` in whole microseconds from any start, with `x`, `y` and `p`,
    which is above 0 where it is on, or with `unit`: each (events,). Of samples, for `fit --file`, they are `x` (n, …)
    and `y` (n,), or the others of an .npz that docs/data.md lists.

    What it raises becomes a sentence with the path and the reader's name. The caller checks types, shapes and ranges,
    and refuses more than 2**25 events, and 2**28 bytes of the file or of arrays; of samples, more than the memory. The
    core's formats are as sure as 0.5 of their suffixes.
    """

    def __call__(self, path: Path) -> Mapping[str, Any]: ...  # noqa: D102


class Neuron(Protocol):
    """A neuron that fires, whose name is its word in `--neuron` and `--architecture`.

    `step` is a function of floats, called once with expressions (`training/fit/author.py`): of `current`, `feedback`
    where layers are recurrent, and the states, of which the first is the membrane; and of keyword-only parameters, each
    with a number as default. It returns the spikes, and the states in that order. `states` has the start of those that
    do not start at 0; `learn` has the parameters that `fit` trains, unbounded. A parameter `threshold`, or else 1, is
    what the first weights suit. A bundle has the program, and is served without the plugin.
    """

    step: Callable[..., Any]
    states: Mapping[str, float | str]
    learn: Sequence[str]


class Command(Protocol):
    """A command of `spikeserve`, with the words after its name; returns the exit status."""

    def __call__(self, arguments: Sequence[str]) -> int | None: ...  # noqa: D102


class ServiceProtocol(Protocol):
    """A way to ask the service beside HTTP, in its process; `at` names an object of this kind.

    The service makes its one setting: `<name>_port`, with a flag and a variable like the others; at 0 nothing of the
    plugin but its records is imported. The record's `says` is what speaks there, such as "gRPC". Before the service
    forks its workers it counts the `threads` that a worker will start, and calls `reserve`, whose context lasts as
    long as the service. In each worker, on its event loop, `start` gets the `service.services.Services` and where
    to listen; it returns a `service.process.server.Running`. Both raise `service.errors.Misconfigured` where they
    cannot listen.
    """

    threads: int

    def reserve(self, host: str, port: int) -> AbstractContextManager[Any]: ...  # noqa: D102
    async def start(self, services: Any, host: str, port: int) -> Any: ...  # noqa: D102


class EngineMaker(Protocol):
    """Makes an engine of a network, on the CPU, whose calls take so many threads: most simply, the engine's class.

    `auto` prefers it to all engines but `event`, and tries the next one where it raises EngineUnavailable.
    """

    def __call__(self, network: Network, threads: int) -> Engine: ...  # noqa: D102
