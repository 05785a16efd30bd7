"""Which engine serves a bundle here."""

from __future__ import annotations

from itertools import pairwise

import structlog

from models.bundle import Bundle
from models.engines import Engine, EngineName, create
from models.engines.choose import check, default
from models.errors import EngineUnavailable
from service.settings import Settings

log = structlog.get_logger()


def engine_for(bundle: Bundle, settings: Settings) -> Engine:
    """Return the engine that runs `bundle`: the one that is set, or the device's default.

    On the CPU, `auto` falls back to `onnx` and then to `reference`, which needs nothing, and logs why. Raises
    EngineUnavailable.
    """
    wanted = [chosen(settings)]
    if settings.engine == "auto" and settings.device == "cpu":
        wanted += [EngineName.ONNX, EngineName.REFERENCE]
    for engine, fallback in pairwise(wanted):
        try:
            return _create(engine, bundle, settings.device)
        except EngineUnavailable as error:
            name, version = bundle.manifest.name, bundle.manifest.version
            log.warning("engine_fallback", model=name, version=version, engine=fallback, reason=str(error))
    return _create(wanted[-1], bundle, settings.device)


def chosen(settings: Settings) -> EngineName:
    """Return the engine that is set, or the device's default."""
    return default(settings.device) if settings.engine == "auto" else EngineName(settings.engine)


def check_device(settings: Settings) -> None:
    """Raise EngineUnavailable where the engine or device that is set is not here: better now than once it serves."""
    if settings.device != "cpu":
        check(chosen(settings), settings.device)


def _create(engine: EngineName, bundle: Bundle, device: str) -> Engine:
    return create(engine, bundle.network, onnx_model=bundle.onnx_model, device=device)
