"""The engines by name, the core's and those that come through the door: what each needs, and how it is made.

Settings, flags, the service, publishing and the parity tests read this table. An engine is imported when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from spikeserve.models.door import Plugin, of_kind
from spikeserve.models.engines.base import Engine
from spikeserve.models.errors import EngineUnavailable
from spikeserve.models.spec.network import Network

CPU = "cpu"


class Declaration(Plugin):
    """One engine: the record of a plugin, and what an engine of the core may have beside it.

    `shares_cores`: whether all its calls in a process together use no more threads than one may, so that a server may
    let each have all. `check_device`: raises EngineUnavailable if a device other than the CPU is missing. An engine
    that has it is made for a device, and `auto` chooses it on those alone; any other runs on the CPU only.
    """

    shares_cores: bool = False
    check_device: Callable[[str], object] | None = None


def _torch_device(device: str) -> None:
    from spikeserve.models.engines.torch.engine import usable_device

    usable_device(device)


class _SharesCores(Declaration):
    shares_cores = True


class _OnDevice(Declaration):
    check_device = staticmethod(_torch_device)


def _engines() -> Iterator[Declaration]:
    """Yield the engines, the best first."""
    core = "spikeserve.models.engines"
    yield _SharesCores("engine", "event", f"{core}.event.engine:EventEngine", "", ("numba",))
    yield from (Declaration(*each) for each in of_kind("engine", ("event", "torch", "reference")).values())
    yield _OnDevice("engine", "torch", f"{core}.torch.engine:TorchEngine", "", ("torch",))
    yield Declaration("engine", "reference", f"{core}.reference:ReferenceEngine", "", ("numpy",))


ENGINES = {each.name: each for each in _engines()}

if TYPE_CHECKING:
    EngineName = str
else:  # for flags and fields, which list the names
    EngineName = Literal[tuple(ENGINES)]


def available() -> tuple[str, ...]:
    """Return the engines whose library is installed."""
    return tuple(name for name, engine in ENGINES.items() if not engine.missing)


def preferred(device: str) -> tuple[str, ...]:
    """Return the engines that can run a network on `device`, the best first; `reference` is always available."""
    return tuple(name for name, engine in ENGINES.items() if (engine.check_device is None) == (device == CPU))


def check(name: str, device: str) -> None:
    """Raise EngineUnavailable, with advice, if there is no such engine, or its library or device is missing."""
    if name not in ENGINES:
        raise EngineUnavailable(f"engine '{name}' is none here, expected {', '.join(ENGINES)}")
    engine = ENGINES[name]
    if engine.missing:
        raise EngineUnavailable(f"engine '{name}': the package {engine.missing[0]} is not installed here")
    if device == CPU:
        return
    if engine.check_device is None:
        able = " or ".join(f"'{other}'" for other in preferred(device))
        raise EngineUnavailable(f"device '{device}': engine '{name}' runs on 'cpu' only; use engine {able}")
    engine.check_device(device)


def create(name: str, network: Network, *, device: str = CPU, threads: int = 1) -> Engine:
    """Return an engine for `network`; raises EngineUnavailable as `check` does."""
    check(name, device)
    engine = ENGINES[name]
    made: Engine = engine.load()(network, device if engine.check_device else threads)
    return made
