"""Choose the engine that runs a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import pairwise

import structlog

from spikeserve.models.bundle import Bundle
from spikeserve.models.engines.base import Engine
from spikeserve.models.engines.compiling import compiled
from spikeserve.models.engines.declared import ENGINES, check, preferred
from spikeserve.models.errors import EngineUnavailable
from spikeserve.service.errors import Misconfigured
from spikeserve.service.settings import Settings

log = structlog.get_logger()


def engine_for(bundle: Bundle, settings: Settings, threads: int = 1, engines: Sequence[str] = ()) -> Engine:
    """Return the engine that runs `bundle`: the first of `engines` that can, by default of `candidates`.

    Where it shares cores with others, it takes up to `threads` threads for a call, as far as no other run needs them.

    If one is unavailable or cannot run it, the next is taken and the log says why. Raises EngineUnavailable.
    """
    engines = engines or candidates(settings)
    for engine, fallback in pairwise(engines):
        try:
            return _made(bundle, engine, settings, threads)
        except EngineUnavailable as error:
            name, version = bundle.manifest.name, bundle.manifest.version
            log.warning("engine_fallback", model=name, version=version, engine=fallback, reason=str(error))
    return _made(bundle, engines[-1], settings, threads)


def _made(bundle: Bundle, engine: str, settings: Settings, threads: int) -> Engine:
    return bundle.engine(engine, settings.device, threads if ENGINES[engine].shares_cores else 1)


def candidates(settings: Settings) -> tuple[str, ...]:
    """Return the engine that is set, or for `auto` those of the device, the best first."""
    return preferred(settings.device) if settings.engine == "auto" else (settings.engine,)


def meanwhile(settings: Settings) -> tuple[str, ...]:
    """Return the engines that may answer while the kernels of the first candidate are compiled; none if they are."""
    others = [each for each in candidates(settings)[1:] if not ENGINES[each].missing]
    return tuple(others) if others and compiles_first(chosen(settings)) else ()


def chosen(settings: Settings) -> str:
    """Return the engine that is set, or the device's default."""
    return candidates(settings)[0]


def compiles_first(engine: str) -> bool:
    """Return whether the engine's kernels are not compiled yet, so that the first load does that."""
    with suppress(ImportError):
        return engine == "event" and not ENGINES[engine].missing and not compiled()
    return False


def check_engine(settings: Settings) -> None:
    """Raise EngineUnavailable, before the server starts, if the device that is set is unavailable.

    Raises Misconfigured where the engine's library is there but does not load: it maps hundreds of megabytes, which a
    limit of memory may not allow. One that is not installed is another matter: `engine_for` may choose another engine.
    """
    if settings.device != "cpu":
        check(chosen(settings), settings.device)
    engine = ENGINES[chosen(settings)]
    try:
        for library in () if engine.missing else engine.needs:
            import_module(library)
    except Exception as error:  # where memory is short, a library may raise anything
        why = str(error) or type(error).__name__
        raise Misconfigured(
            f"engine: {library} cannot be loaded ({why.splitlines()[0]}), expected enough memory for it; see ulimit -v"
        ) from error
