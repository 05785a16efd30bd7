"""The service's own application, for other HTTP servers than the one it comes with."""

from __future__ import annotations

import gc
import sys
import time
from threading import Thread

from fastapi import FastAPI

from spikeserve.service.app import create_app
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry import logs


def application() -> FastAPI:
    """Return the application that the environment's settings describe, with the service's log and garbage collection.

    Raises Misconfigured where the settings describe none.
    """
    settings = Settings()
    logs.configure(settings.log_level, sys.stdout)
    app = create_app(settings)
    Thread(target=_freeze, args=(app,), daemon=True).start()
    return app


def _freeze(app: FastAPI) -> None:
    """Exclude what was loaded at the start from garbage collection, as `service.process.server` does."""
    while not app.state.services.readiness.first_load_over:
        time.sleep(0.1)
    gc.collect()
    gc.freeze()
