"""Which web pages may use this server: its own, and those of the origins in the setting `allowed_origins`.

Any page in a browser can post to this server, even to one on the loopback. Without CORS headers a page of another
origin cannot read the answer, but it could still unload a model. Browsers send headers that say where a request comes
from, and pages cannot forge them. Other clients send none and are let through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from spikeserve.service.errors import shown
from spikeserve.service.http.errors import error_response
from spikeserve.service.http.middleware.keys import is_control
from spikeserve.service.http.middleware.requests import EXCHANGE

HOST, ORIGIN, SITE = b"host", b"origin", b"sec-fetch-site"
ALLOWED_SITES = frozenset({b"same-origin", b"none"})  # `none`: the user typed the address
ANY = "*"  # as the setting says it: pages of every origin

METHODS = ("GET", "HEAD", "POST")
# The headers of requests that the routes read, and those of answers that a page may read.
REQUEST_HEADERS = (
    "Authorization",
    "Content-Encoding",
    "Inference-Header-Content-Length",
    "Traceparent",
    "Tracestate",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
    "X-Server-Timing",
    "X-Trial",
)
ANSWER_HEADERS = ("Inference-Header-Content-Length", "Retry-After", "Server-Timing", "X-Request-ID")


class Cors(CORSMiddleware):
    """Starlette's middleware for CORS, for the allowed origins; a refused preflight is answered as any error is.

    A preflight carries no key, so this stands before the check of keys. There are no cookies: a page sends its key.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            allow_private_network=True,
            expose_headers=ANSWER_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight: 200 with what is allowed, or 400 with a sentence."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == HTTPStatus.OK:
            return answer
        refused = bytes(answer.body).decode().removeprefix("Disallowed CORS ")
        sentence = f"the preflight asks for another {refused} than allowed_origins and this server's API allow"
        return error_response(answer.status_code, sentence, {"Vary": answer.headers["Vary"]})


class OriginCheck:
    """Middleware that answers 403 to a POST or a WebSocket from a page of an origin that is not allowed.

    No page of another origin may load or unload models, allowed or not.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(allowed)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on unless it comes from a page that may not send it."""
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] == "POST"):
            headers = scope[EXCHANGE].headers
            if (SITE in headers or ORIGIN in headers) and (sentence := self._refusal(scope["path"], headers)):
                return error_response(HTTPStatus.FORBIDDEN, sentence)(scope, receive, send)
        return self.app(scope, receive, send)

    def _refusal(self, path: str, headers: Mapping[bytes, bytes]) -> str | None:
        """Return why the request is refused, or None if it is allowed."""
        sentence = _not_ours(headers)
        if sentence is None or is_control(path):
            return sentence
        origin = headers.get(ORIGIN, b"").decode("latin-1")
        return None if ANY in self.allowed or origin in self.allowed else sentence


def _not_ours(headers: Mapping[bytes, bytes]) -> str | None:
    """Return a sentence if the request comes from a page of another origin, else None.

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
