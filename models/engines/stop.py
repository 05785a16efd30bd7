"""How a run is stopped: one whose answer nobody waits for any more, or that takes longer than it may."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spikeserve.models.errors import Stopped


class Stop:
    """A request to end a run early. One thread makes it; the thread of the run finds it at its next check.

    An engine that counts operations while it runs makes it itself once they are more than `operations`, unless that
    is 0.
    """

    def __init__(self, operations: int = 0) -> None:
        self.flag = np.array([0, operations], np.int64)  # which native code looks at while it runs
        self._notify: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether the run was asked to end."""
        return bool(self.flag[0])

    def request(self) -> None:
        """Ask the run to end."""
        self.flag[0] = 1
        if self._notify is not None:
            self._notify()

    def notify(self, function: Callable[[], None]) -> None:
        """Call `function` at the request, from the requesting thread; at once if the request was made already.

        For a library that computes for long and has a way of its own to be stopped. It may be called twice.
        """
        self._notify = function  # before the flag is read, as `request` sets the flag before it reads this
        if self.requested:
            function()

    def check(self) -> None:
        """Raise Stopped if the run was asked to end."""
        if self.requested:
            raise Stopped("the run was stopped: nobody waits for its answer, or it has more operations than it may")


def check(stop: Stop | None) -> None:
    """Raise Stopped if there is a stop and it was requested."""
    if stop is not None:
        stop.check()
