"""How long a thread may keep the interpreter while another waits for it: shorter while long bodies are decoded.

The event loop gives the interpreter up at every read and write of a socket, and then waits that long if a thread
decodes a body or renders a long answer: Python's 5 ms would add up for each request. Without such threads a shorter
time only costs switches.
"""

from __future__ import annotations

import sys

SHORT_SECONDS = 5e-4


class ShortSwitches:
    """Shortens the time while any of the work that it is told of goes on. The event loop alone calls it."""

    def __init__(self) -> None:
        self.works = 0
        self.usual = sys.getswitchinterval()

    def begin(self) -> None:
        """Work begins on a thread that keeps the interpreter."""
        if not self.works:
            self.usual = sys.getswitchinterval()
            sys.setswitchinterval(SHORT_SECONDS)
        self.works += 1

    def end(self) -> None:
        """Work has ended; after the last of it, the time is what it was before the first."""
        self.works -= 1
        if not self.works:
            sys.setswitchinterval(self.usual)
