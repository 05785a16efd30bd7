"""The search of the documentation's site finds words of the Chinese pages, in a real browser."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.browsers import browsing, serving_files
from tests.pages import ROOT

pytest.importorskip("zensical", reason="zensical is not installed here: it is of the extra 'docs'")
SITE = """[project]
site_name = "x"
use_directory_urls = false
[project.plugins.search]
separator = '''{separator}'''
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder of a site of one page, a Chinese tutorial, with the search of the whole site."""
    config = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    (tmp_path / "docs").mkdir()
    page = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", (ROOT / "docs/zh-tw/gradient.md").read_text())  # no links
    (tmp_path / "docs/index.md").write_text(page)
    (tmp_path / "zensical.toml").write_text(SITE.format(separator=config["plugins"]["search"]["separator"]))
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-m", "zensical", "build"], cwd=tmp_path, check=True, env=environment)
    return tmp_path / "site"


def test_the_search_finds_chinese_words_within_sentences(site: Path) -> None:
    with browsing() as browser, serving_files(site) as port:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/index.html")
        page.keyboard.press("/")
        results = page.get_by_text(re.compile(r"^[1-9]\d* results?$"))
        for word, count in (("梯度", 1), ("葡萄", 0), ("小丘", 1), ("葡萄", 0), ("BrokenGradientChain", 1)):
            page.get_by_placeholder("Search").fill(word)
            pytest.importorskip("playwright.sync_api").expect(results).to_have_count(count)
