"""Which engines are installed here, and which one runs a network."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec

from models.engines.base import Engine
from models.errors import EngineUnavailable
from models.spec.network import Network


class EngineName(StrEnum):
    """The engines by name."""

    REFERENCE = "reference"
    EVENT = "event"
    ONNX = "onnx"
    TORCH = "torch"


NEEDS = {
    EngineName.REFERENCE: "numpy",
    EngineName.EVENT: "numba",
    EngineName.ONNX: "onnxruntime",
    EngineName.TORCH: "torch",
}


def available() -> tuple[EngineName, ...]:
    """Return the engines whose library is installed."""
    return tuple(engine for engine, library in NEEDS.items() if find_spec(library) is not None)


def preferred(device: str) -> tuple[EngineName, ...]:
    """Return the engines that may serve a network on `device`, the best first; `reference` needs nothing."""
    if device != "cpu":
        return (EngineName.TORCH,)
    return (EngineName.EVENT, EngineName.ONNX, EngineName.REFERENCE)


def check(engine: EngineName, device: str) -> None:
    """Raise EngineUnavailable where the engine's library or device is not here, with what to do about it."""
    if engine not in available():
        raise EngineUnavailable(f"engine '{engine}': the package {NEEDS[engine]} is not installed here")
    if device != "cpu" and engine is not EngineName.TORCH:
        raise EngineUnavailable(f"device '{device}': engine '{engine}' runs on 'cpu' only; use engine 'torch'")
    if device != "cpu":
        from models.engines.torch.engine import usable_device

        usable_device(device)


def create(
    engine: EngineName, network: Network, *, onnx_model: bytes | None = None, device: str = "cpu", threads: int = 1
) -> Engine:
    """Return an engine for `network`; `onnx_model` is the bundle's model.onnx, where it has one.

    Raises EngineUnavailable where `check` would.
    """
    check(engine, device)
    # Each library is imported only by the engine that needs it: a serving image holds just one of them.
    if engine is EngineName.TORCH:
        from models.engines.torch.engine import TorchEngine

        return TorchEngine(network, device)
    if engine is EngineName.EVENT:
        from models.engines.event import EventEngine

        return EventEngine(network, threads)
    if engine is EngineName.ONNX:
        from models.engines.onnx.engine import OnnxEngine, build_model

        return OnnxEngine(network, build_model(network) if onnx_model is None else onnx_model, threads)
    from models.engines.reference import ReferenceEngine

    return ReferenceEngine(network)
