"""A real browser, and a web server of files, for tests of what people open in one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

WAIT = 60_000  # milliseconds, for a machine that is busy
NAMES = ("chromium", "chromium-browser", "google-chrome")
# Without these it looks for updates, and in a container, as root, it does not start at all.
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


def playwright() -> Any:
    """Import Playwright, by which tests drive browsers, or skip where it is not installed."""
    reason = "playwright is not installed here: it is of the extra 'clients'"
    return pytest.importorskip("playwright.sync_api", reason=reason)


@contextmanager
def browsing(*flags: str) -> Iterator[Any]:
    """Open a browser, with more flags."""
    sync_api = playwright()
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no browser is installed here; on Debian: apt-get install chromium")
    sync_api.expect.set_options(timeout=WAIT)
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=[*FLAGS, *flags])
        yield browser
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing of its requests."""


@contextmanager
def serving_files(folder: Path) -> Iterator[int]:
    """Run a web server of a folder's files, and yield its port on the loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
