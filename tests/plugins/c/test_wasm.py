"""A bundle as WebAssembly: a page without a server answers as the service does, in a real browser."""

import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.engines.reference import ReferenceEngine
from tests.training.command_line import ROOT, training_here

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed here: it is of the extra 'clients'"
)
DIGITS = ROOT / "models/pretrained/digits/1"
WAIT = 60_000  # milliseconds, for a machine that is busy
SEVEN = ["00000000", "00111110", "00000110", "00001100", "00011000", "00110000", "00110000", "00000000"]
needs_clang = pytest.mark.skipif(
    shutil.which("clang") is None or shutil.which("wasm-ld") is None,
    reason="clang or lld is not installed: ./scripts/install-tools",
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A static site of the example's page and the module that the page's command writes."""
    done = training_here("export", "wasm", DIGITS, tmp_path / "digits.wasm")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "digits.wasm").stat().st_size < 200_000
    shutil.copy(ROOT / "examples/offline.html", tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/offline.html"
        server.shutdown()
        thread.join()


@needs_clang
def test_a_digit_that_is_drawn_has_the_counts_of_the_service(site: str) -> None:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser is installed here; on Debian: apt-get install chromium")
    drawn = np.array([[int(cell) for cell in row] for row in SEVEN], np.float32) * 16
    network = Bundle.read(DIGITS).network
    result, _ = ReferenceEngine(network).run(encode(drawn.reshape(1, 1, 8, 8), network.spec))
    counts = " ".join(map(str, result.spike_counts[0]))
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(site)
        sync_api.expect(page.locator("#paper div")).to_have_count(64, timeout=WAIT)
        assert page.locator("#said").text_content() == ""  # nothing is drawn
        for cell in np.flatnonzero(drawn):
            page.locator("#paper div").nth(int(cell)).click(timeout=WAIT)
        said = page.locator("#said")
        sync_api.expect(said).to_have_text(f"{result.class_index[0]}, of spike counts {counts}", timeout=WAIT)
        browser.close()


def test_what_makes_webassembly_is_named_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = training_here("export", "wasm", DIGITS, tmp_path / "digits.wasm")
    assert done.returncode == 1
    assert done.stderr == ("error: clang is not installed, which makes WebAssembly; on Debian: apt-get install clang\n")
    assert not [*tmp_path.iterdir()]
