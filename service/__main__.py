"""`spikeserve serve`, and `python -m spikeserve.service`. Signal handlers are set first: the imports take a second."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from spikeserve.models.door import quick_imports
from spikeserve.models.errors import InvalidInput


def main(arguments: Sequence[str]) -> int:
    """Run the command line of the service, and return its exit status."""
    # Until there is a server to drain, SIGTERM ends the process at once: the first one of a container ignores signals
    # that it has no handler for. An exception from here would be lost where it comes in a callback of a fork.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # A closed terminal (SIGHUP) stops it like SIGTERM, unless SIGHUP is ignored, for example by nohup.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))

    try:
        with quick_imports():
            from spikeserve.service.process.command_line import main as run
    except InvalidInput as error:  # of a plugin
        sys.exit(f"spikeserve: {error}")
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
