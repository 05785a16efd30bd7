"""The list of the engines: each one's name, the library that it needs, its properties and how it is created.

To add an engine, add a member to `EngineName` and an entry to `ENGINES`; settings, the scheduler's batching, benchmarks
and the parity tests read them. An engine's libraries are imported when the engine is created.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

from spikeserve.models.engines.base import Engine
from spikeserve.models.errors import EngineUnavailable
from spikeserve.models.spec.network import Network

CPU = "cpu"


class EngineName(StrEnum):
    """The engines by name, the default one first."""

    EVENT = "event"
    ONNX = "onnx"
    TORCH = "torch"
    REFERENCE = "reference"


@dataclass(frozen=True)
class Declaration:
    """One engine.

    `libraries`: the modules that it imports. `make`: creates one for a network, on a device and with so many threads a
    call. `batches`: whether the time per sample falls as a batch grows, so that a scheduler should wait for more
    requests. `chosen_on_cpu`: whether `auto` may choose it on the CPU.
    `shares_cores`: whether all its calls in a process together use no more threads than one may, so that a server may
    let each have all. `check_device`: raises EngineUnavailable if a device other than the CPU is missing; without it
    the engine runs on the CPU only.
    """

    libraries: tuple[str, ...]
    make: Callable[[Network, str, int], Engine]
    batches: bool
    chosen_on_cpu: bool = True
    shares_cores: bool = False
    check_device: Callable[[str], object] | None = None

    @property
    def installed(self) -> bool:
        """Whether its libraries are installed."""
        return not self.missing

    @property
    def missing(self) -> list[str]:
        """The libraries that are not installed."""
        return [library for library in self.libraries if find_spec(library) is None]


def _event(network: Network, _: str, threads: int) -> Engine:
    from spikeserve.models.engines.event import EventEngine

    return EventEngine(network, threads)


def _onnx(network: Network, _: str, threads: int) -> Engine:
    from spikeserve.plugins.onnx.engine import OnnxEngine

    return OnnxEngine(network, threads)


def _torch(network: Network, device: str, _: int) -> Engine:
    from spikeserve.models.engines.torch.engine import TorchEngine

    return TorchEngine(network, device)


def _torch_device(device: str) -> None:
    from spikeserve.models.engines.torch.engine import usable_device

    usable_device(device)


def _reference(network: Network, *_: object) -> Engine:
    from spikeserve.models.engines.reference import ReferenceEngine

    return ReferenceEngine(network)


ENGINES: Mapping[EngineName, Declaration] = {
    EngineName.EVENT: Declaration(("numba",), _event, batches=False, shares_cores=True),
    EngineName.ONNX: Declaration(("onnx", "onnxruntime"), _onnx, batches=True),
    EngineName.TORCH: Declaration(("torch",), _torch, batches=True, chosen_on_cpu=False, check_device=_torch_device),
    EngineName.REFERENCE: Declaration(("numpy",), _reference, batches=False),
}


def available() -> tuple[EngineName, ...]:
    """Return the engines whose library is installed."""
    return tuple(name for name, engine in ENGINES.items() if engine.installed)


def preferred(device: str) -> tuple[EngineName, ...]:
    """Return the engines that can run a network on `device`, the best first; `reference` is always available."""
    if device == CPU:
        return tuple(name for name, engine in ENGINES.items() if engine.chosen_on_cpu)
    return tuple(name for name, engine in ENGINES.items() if engine.check_device)


def check(name: EngineName, device: str) -> None:
    """Raise EngineUnavailable, with advice, if the engine's library or device is missing."""
    engine = ENGINES[name]
    if engine.missing:
        raise EngineUnavailable(f"engine '{name}': the package {engine.missing[0]} is not installed here")
    if device == CPU:
        return
    if engine.check_device is None:
        able = " or ".join(f"'{other}'" for other in preferred(device))
        raise EngineUnavailable(f"device '{device}': engine '{name}' runs on 'cpu' only; use engine {able}")
    engine.check_device(device)


def create(name: EngineName, network: Network, *, device: str = CPU, threads: int = 1) -> Engine:
    """Return an engine for `network`; raises EngineUnavailable as `check` does."""
    check(name, device)
    return ENGINES[name].make(network, device, threads)
