"""A Ctrl-C or SIGTERM comes between two batches, never within a checkpoint, a row of the table or an event file."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back until the function that is yielded is called, which then raises KeyboardInterrupt.

    So does the end of the block. A second interrupt raises at once, for those who will not wait. Outside the main
    thread nothing changes, nor for a signal that the program handles in its own way.
    """
    asked = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {n: default for n, default in DEFAULTS.items() if in_main_thread and signal.getsignal(n) == default}
    for number in before:
        signal.signal(number, hold)
    try:
        yield check
        check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
