"""Which engine serves a bundle here."""

from __future__ import annotations

import structlog

from models.bundle import Bundle
from models.engines import Engine, EngineName, create
from models.engines.choose import check, default
from models.errors import EngineUnavailable
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
    """Raise EngineUnavailable where the engine or device that is set is not here: better now than once it serves."""
    if settings.device != "cpu":
        check(chosen(settings), settings.device)


def _create(engine: EngineName, bundle: Bundle, device: str) -> Engine:
    return create(engine, bundle.network, onnx_model=bundle.onnx_model, device=device)
