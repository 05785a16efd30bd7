"""Take the README's pictures again, from a running server: `python -m docs.pictures http://localhost:8000`.

It needs the extra `clients` and Chromium, which `./scripts/install-tools` installs.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1100, 2600
TRIES, USUAL_MS = 50, 30.0  # the first answers take longer than later ones, as do all on a busy machine


def take(url: str) -> None:
    """Open the page at `url`, wait until it shows an answer, and save both pictures to docs/images."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(url)
        expect(page.locator("#facts")).to_contain_text("synaptic operations", timeout=60_000)
        for _ in range(TRIES):
            expect(page.locator("#answer")).to_have_attribute("aria-busy", "false", timeout=60_000)
            if float(page.locator("#work tr td").last.inner_text().split()[0]) < USUAL_MS:
                break
            page.get_by_role("button", name="Example 1", exact=True).click()
        raster = page.locator("section", has=page.locator("#rasters"))
        box = raster.bounding_box()
        if box is None:
            raise SystemExit(f"{url}: the page shows no raster")
        page.screenshot(path=IMAGES / "page.png", clip={"x": 0, "y": 0, "width": WIDTH, "height": box["y"] - 6})
        raster.screenshot(path=IMAGES / "raster.png")
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m docs.pictures http://localhost:8000")
    take(sys.argv[1])
