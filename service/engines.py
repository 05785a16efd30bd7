"""Which engine serves a bundle here."""

from __future__ import annotations

import structlog

from models.bundle import Bundle
from models.engines import Engine, EngineName, create
from models.engines.choose import default
from models.errors import EngineUnavailable
from models.network import Network
from models.spec import Spec
from service.settings import Settings

log = structlog.get_logger()


def engine_for(bundle: Bundle, settings: Settings) -> Engine:
    """Return the engine that runs `bundle`: the one that is set, or the device's default.

    On the CPU, `auto` falls back to `reference`, which needs nothing, and logs why. Raises EngineUnavailable.
    """
    try:
        return _create(chosen(settings), bundle, settings.device)
    except EngineUnavailable as error:
        if settings.engine != "auto" or settings.device != "cpu":
            raise
        name, version = bundle.manifest.name, bundle.manifest.version
        log.warning("engine_fallback", model=name, version=version, engine=EngineName.REFERENCE, reason=str(error))
        return _create(EngineName.REFERENCE, bundle, settings.device)


def chosen(settings: Settings) -> EngineName:
    """Return the engine that is set, or the device's default."""
    return default(settings.device) if settings.engine == "auto" else EngineName(settings.engine)


def check_device(settings: Settings) -> None:
    """Put a network of one neuron on the device that is set; raises EngineUnavailable where that cannot be."""
    if settings.device == "cpu":
        return
    spec = Spec.read(
        {"input": {"shape": [1]}, "time_steps": 1, "nodes": [{"type": "IF", "name": "out"}], "labels": ["_"]}
    )
    try:
        create(chosen(settings), Network(spec, {}), device=settings.device)
    except RuntimeError as error:  # PyTorch's, for a device index that there is not
        raise EngineUnavailable(f"device '{settings.device}': {str(error).splitlines()[0]}") from error


def _create(engine: EngineName, bundle: Bundle, device: str) -> Engine:
    return create(engine, bundle.network, onnx_model=bundle.onnx_model, device=device)
