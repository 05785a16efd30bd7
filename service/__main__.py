"""`spikeserve serve`, and `python -m spikeserve.service`. Signal handlers are set first: the imports take a second."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence

from spikeserve.models.errors import InvalidInput


def main(arguments: Sequence[str]) -> int:
    """Run the command line of the service, and return its exit status."""
    # The first process of a container ignores signals that it has no handler for, so SIGTERM would not stop it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # A closed terminal (SIGHUP) stops it like SIGTERM, unless SIGHUP is ignored, for example by nohup.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))

    gc.disable()  # what is imported stays: to look for garbage in it takes a sixth of the time
    # FastAPI's models of an OpenAPI document alone take a tenth of the start: models are built when they are used.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")  # to find them, all installed packages are read
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True
    try:
        from spikeserve.service.process.command_line import main as run
    except InvalidInput as error:  # of a plugin
        sys.exit(f"spikeserve: {error}")
    gc.freeze()
    gc.enable()
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
