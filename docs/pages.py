"""Gather the pages of the site in one folder: `python -m docs.pages build/docs`.

The pages lie where people look for them in a repository: docs/, and beside the code README.md's neighbours such as
SECURITY.md. A site has all of its pages in one folder, so that each is copied there and its links are made to fit.
What a link leads to, and whether it is there, is checked afterwards by the generator and by tests/test_docs.py.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
PAGES = "docs"
# The pages that lie elsewhere, each with its place on the site.
ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "deploy.md",
}
LINK = re.compile(r"(?<=\]\()(?P<path>[^()#\s:]+)(?P<anchor>#[^()\s]*)?(?=\))")


def places() -> dict[str, str]:
    """Return the site's pages, pictures and style sheet: each path from the project's root to that on the site."""
    own = [path.relative_to(ROOT / PAGES) for kind in ("*.md", "*.png", "*.css") for path in (ROOT / PAGES).rglob(kind)]
    return {f"{PAGES}/{path.as_posix()}": path.as_posix() for path in sorted(own)} | ELSEWHERE


def moved(text: str, source: str, site: dict[str, str]) -> str:
    """Return a page's text with its links as they are on the site; `source` is its path from the project's root.

    A link that leads to nothing on the site stays as it is, and so the generator complains of it.
    """

    def link(match: re.Match[str]) -> str:
        path = os.path.normpath(PurePosixPath(source).parent / match["path"])
        if path not in site:
            return match[0]
        return os.path.relpath(site[path], PurePosixPath(site[source]).parent) + (match["anchor"] or "")

    return LINK.sub(link, text)


def gather(folder: Path) -> None:
    """Empty `folder` and write the site's pages to it."""
    shutil.rmtree(folder, ignore_errors=True)
    site = places()
    for source, place in site.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            target.write_text(moved((ROOT / source).read_text(), source, site))
        else:
            shutil.copyfile(ROOT / source, target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m docs.pages <folder>")
    gather(Path(sys.argv[1]))
