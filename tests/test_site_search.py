"""The search of the documentation's site finds words of the Chinese pages, in a real browser."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.pages import ROOT

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed here: it is of the extra 'clients'"
)
pytest.importorskip("zensical", reason="zensical is not installed here: it is of the extra 'docs'")
WAIT = 60_000  # milliseconds, for a machine that is busy
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SITE = """[project]
site_name = "x"
use_directory_urls = false
[project.plugins.search]
separator = '''{separator}'''
"""


class Quiet(SimpleHTTPRequestHandler):
    """Files, without a line for each request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> str:
    """The folder of a site of one page, a Chinese tutorial, with the search of the whole site."""
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    (tmp_path / "docs").mkdir()
    page = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", (ROOT / "docs/zh-tw/gradient.md").read_text())  # no links
    (tmp_path / "docs/index.md").write_text(page)
    (tmp_path / "zensical.toml").write_text(SITE.format(separator=config["plugins"]["search"]["separator"]))
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-m", "zensical", "build"], cwd=tmp_path, check=True, env=environment)
    return str(tmp_path / "site")


def test_the_search_finds_chinese_words_within_sentences(site: str) -> None:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no browser is installed here; on Debian: apt-get install chromium")
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server,
        sync_api.sync_playwright() as playwright,
    ):
        Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.keyboard.press("/")
        results = page.get_by_text(re.compile(r"^[1-9]\d* results?$"))
        for word, found in (("梯度", 1), ("葡萄", 0), ("小丘", 1), ("葡萄", 0), ("BrokenGradientChain", 1)):
            page.get_by_placeholder("Search").fill(word)
            sync_api.expect(results).to_have_count(found, timeout=WAIT)
        browser.close()
        server.shutdown()
