"""Which pages may ask: a browser sends what any page tells it to, keys or none, also to a server on the loopback.

Without CORS headers a page of another origin cannot read an answer, and it can still unload a model. A browser says
where a request comes from, and no page can change what it says; other clients say nothing, and are not asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import shown
from service.http.errors import error_response
from service.http.middleware.requests import EXCHANGE

HOST, ORIGIN, SITE = b"host", b"origin", b"sec-fetch-site"
OWN = frozenset({b"same-origin", b"none"})  # `none` is the user's own doing


class OriginCheck:
    """Middleware that answers 403 in the app's stead where a page of another origin posts something."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on if it may go on."""
        if scope["type"] == "http" and scope["method"] == "POST":
            headers = scope[EXCHANGE].headers
            if (SITE in headers or ORIGIN in headers) and (sentence := _refusal(headers)):
                return error_response(HTTPStatus.FORBIDDEN, sentence)(scope, receive, send)
        return self.app(scope, receive, send)


def _refusal(headers: Mapping[bytes, bytes]) -> str | None:
    """Say why a page may not ask, unless it may.

    What Sec-Fetch-Site says is enough, for a proxy may have changed the host. Not every browser sends it, and none to
    an address that is neither HTTPS nor the loopback's.
    """
    site = headers.get(SITE)
    if site is not None:
        if site in OWN:
            return None
        return f"the header Sec-Fetch-Site is {_text(site)}, expected same-origin: pages of others may not post here"
    origin = headers.get(ORIGIN)
    if origin is None:
        return None
    host = headers.get(HOST, b"")
    if origin.partition(b"://")[2].lower() == host.lower():
        return None
    return f"the header Origin is {_text(origin)}, expected that of {_text(host)}: pages of others may not post here"


def _text(value: bytes) -> str:
    return shown(value.decode("latin-1"))
