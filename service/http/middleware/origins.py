"""Protection from cross-site requests: any page in a browser can post to this server, even one on the loopback.

Without CORS headers a page of another origin cannot read the answer, but it could still unload a model. Browsers send
headers that say where a request comes from, and pages cannot forge them. Other clients send none and are let through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import shown
from service.http.errors import error_response
from service.http.middleware.requests import EXCHANGE

HOST, ORIGIN, SITE = b"host", b"origin", b"sec-fetch-site"
ALLOWED_SITES = frozenset({b"same-origin", b"none"})  # `none`: the user typed the address


class OriginCheck:
    """Middleware that answers 403 to a POST or a WebSocket from a page of another origin."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on unless a page of another origin posts it."""
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] == "POST"):
            headers = scope[EXCHANGE].headers
            if (SITE in headers or ORIGIN in headers) and (sentence := _refusal(headers)):
                return error_response(HTTPStatus.FORBIDDEN, sentence)(scope, receive, send)
        return self.app(scope, receive, send)


def _refusal(headers: Mapping[bytes, bytes]) -> str | None:
    """Return why the request is refused, or None if it is allowed.

    Sec-Fetch-Site decides where it is sent, since a proxy may have changed Host. Old browsers do not send it, and no
    browser sends it to an address that is neither HTTPS nor on the loopback: there Origin is compared with Host.
    """
    site = headers.get(SITE)
    if site is not None:
        if site in ALLOWED_SITES:
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
