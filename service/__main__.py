"""`python -m service`. Signal handlers are set first, since the imports take a second."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    # The first process of a container ignores signals that it has no handler for, so SIGTERM would not stop it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # A closed terminal (SIGHUP) stops it like SIGTERM, unless SIGHUP is ignored, for example by nohup.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))

    from service.process.command_line import main

    sys.exit(main(sys.argv[1:]))
