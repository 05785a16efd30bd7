"""The web page: plain HTML, CSS and ES modules, under a Content-Security-Policy that allows this server alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType

from fastapi import HTTPException, Response

FILES = "/page"  # below which the page's files are
TYPES = {".css": "text/css", ".js": "text/javascript"}


def guarded(*sources: str) -> dict[str, str]:
    """Return the headers of a page that may load what these sources say, fetch from this server, and nothing else."""
    closed = "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"
    policy = "; ".join(("default-src 'none'", *sources, "connect-src 'self'", *closed))
    return {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}


HEADERS = {
    **guarded("script-src 'self'", "style-src 'self'", "img-src data: blob:"),  # an image that somebody drops
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_FOLDER = Path(__file__).parent


async def page() -> Response:
    """Return the page."""
    return Response(_files()["index.html"], headers=HEADERS, media_type="text/html")


async def page_file(name: str) -> Response:
    """Return one of the page's style sheets and modules; raises HTTPException for any other name."""
    suffix = Path(name).suffix
    if suffix not in TYPES or name not in _files():
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return Response(_files()[name], headers=HEADERS, media_type=TYPES[suffix])


@cache
def _files() -> Mapping[str, str]:
    """Return the content of the page's files, by name; they are read once, and no other path is ever opened."""
    files = (file for file in _FOLDER.iterdir() if file.suffix in (".html", *TYPES))
    return MappingProxyType({file.name: file.read_text("utf-8") for file in files})
