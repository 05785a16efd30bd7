"""`python -m service`: signals first, for what they are to end takes a second to import."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    # A container's first process gets no signal that it has no handler for, and would be waited for in vain.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # When its terminal closes it ends as well as at SIGTERM, unless it was told not to mind, as by nohup.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))

    from service.process.command_line import main

    sys.exit(main(sys.argv[1:]))
