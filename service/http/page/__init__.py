"""The web page: one HTML file, whose Content-Security-Policy allows only its own script and style, and this server."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import Response

_FILE = Path(__file__).parent / "index.html"


def page() -> Response:
    """Return the page."""
    html, headers = _read()
    return Response(html, headers=headers, media_type="text/html")


@cache
def _read() -> tuple[str, dict[str, str]]:
    """Return the file and its headers; it is read once."""
    html = _FILE.read_text()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{source_of('script', html)}'",
            f"style-src '{source_of('style', html)}'",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return html, {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def source_of(tag: str, html: str) -> str:
    """Return the Content-Security-Policy source of the page's one inline element of that tag."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
