"""Who may ask: which paths need a key, and which web pages may use this server.

When client keys are set, every path except `PROBES` and `PUBLIC_PAGES` needs `Authorization: Bearer <key>`; a browser's
WebSocket offers the subprotocols `spikeserve` and `spikeserve.key.<key>` instead. When admin keys are set, every path
under `CONTROL` needs an admin key.

Any page in a browser can post to this server, even to one on the loopback. Without CORS headers a page of another
origin cannot read the answer, but it could still unload a model. So only the server's own pages may, and those of the
origins in the setting `allowed_origins`. Browsers send headers that say where a request comes from, and pages cannot
forge them. Other clients send none and are let through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from ipaddress import ip_address

from starlette.datastructures import Headers as RequestHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spikeserve.service.errors import shown
from spikeserve.service.http import docs, page
from spikeserve.service.http.answers import Headers, error_response
from spikeserve.service.http.requests import EXCHANGE, METRICS, PROBES
from spikeserve.service.inference.scheduling.query import Sender
from spikeserve.service.keys import AUTHORIZATION, KeyRing, bearer_key
from spikeserve.service.settings import Settings

# Where people type their key in. These pages are the same for every server of a version, and name no model.
PUBLIC_PAGES = frozenset({"/", docs.PATH, docs.DOCUMENT})
CONTROL = ("/v2/repository",)  # these paths, and all below them, load and unload models

SUBPROTOCOL = "spikeserve"  # of WebSockets; a browser offers it together with the one that holds its key
KEY_SUBPROTOCOL = "spikeserve.key."
CHALLENGE = {"WWW-Authenticate": "Bearer"}


def is_control(path: str) -> bool:
    """Return whether a path loads or unloads models, and so needs an admin key."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in CONTROL)


class Access:
    """Who may ask, by a request's path, headers and key, and which pages may read the answer.

    A POST or a WebSocket from a page of an origin that is not allowed is refused. No page of another origin may load or
    unload models, allowed or not.
    """

    def __init__(self, keys: KeyRing, settings: Settings) -> None:
        self.keys = keys
        self.origins = frozenset(settings.origins)
        self.open = PROBES | PUBLIC_PAGES | ({METRICS} if settings.public_metrics else set())

    def refusal(
        self, path: str, headers: Mapping[bytes, bytes], key: bytes | None, *, posts: bool = True
    ) -> tuple[HTTPStatus, str] | None:
        """Return the status 401 or 403 and the sentence of a request that may not be answered, else None."""
        control = is_control(path)
        if posts and (SITE in headers or ORIGIN in headers) and (sentence := _not_ours(headers)):
            origin = headers.get(ORIGIN, b"").decode("latin-1")
            if control or not (ANY in self.origins or origin in self.origins):
                return HTTPStatus.FORBIDDEN, sentence
        if not self.keys:
            return None
        is_open = path in self.open or path.startswith((f"{docs.FILES}/", f"{page.FILES}/"))
        if not control and (is_open or not self.keys.clients):
            return None
        return self.keys.refusal(key, control=control)

    def cors(self, origin: bytes | None) -> Headers:
        """Return what CORS adds to the headers of an answer to a page of `origin`, or None for another client."""
        if not self.origins:
            return ()
        if origin is None:
            return (VARIES,)
        if ANY in self.origins:
            return ((ALLOWED, b"*"), EXPOSED, VARIES)
        return (EXPOSED, *(((ALLOWED, origin),) if origin.decode("latin-1") in self.origins else ()), VARIES)


class AccessCheck:
    """Middleware that answers 401 or 403 what `access` refuses."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass the request on if its key and where it comes from allow it."""
        if scope["type"] not in ("http", "websocket"):
            return self.app(scope, receive, send)
        posts = scope["type"] == "websocket" or scope["method"] == "POST"
        refused = self.access.refusal(scope["path"], scope[EXCHANGE].headers, _key(scope), posts=posts)
        if refused is None:
            return self.app(scope, receive, send)
        status, sentence = refused
        headers = CHALLENGE if status == HTTPStatus.UNAUTHORIZED else {}
        return error_response(status, sentence, headers)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Return whether a bound address can be reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def sender_of(scope: Scope) -> Sender:
    """Return the sender of a request: its key, whether it is known or not, and the address that it came from."""
    host, port = scope.get("client") or ("", 0)
    return Sender(_key(scope) or b"", host, port)


def _key(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == AUTHORIZATION and (key := bearer_key(value)) is not None:
            return key
    # A page in a browser can set no header of a WebSocket but this one.
    for protocol in scope.get("subprotocols", ()):
        if protocol.startswith(KEY_SUBPROTOCOL):
            return protocol.removeprefix(KEY_SUBPROTOCOL).encode()
    return None


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
)
ANSWER_HEADERS = ("Inference-Header-Content-Length", "Retry-After", "Server-Timing", "X-Request-ID")
ALLOWED, VARIES = b"access-control-allow-origin", (b"vary", b"Origin")
EXPOSED = (b"access-control-expose-headers", ", ".join(ANSWER_HEADERS).encode())


class Cors(CORSMiddleware):
    """Starlette's middleware for CORS, for the allowed origins; a refused preflight is answered as any error is.

    A preflight carries no key, so this stands before the check of keys. There are no cookies: a page sends its key.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.access = access
        super().__init__(
            app,
            allow_origins=access.origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            allow_private_network=True,
        )

    async def send(self, message: Message, send: Send, request_headers: RequestHeaders) -> None:
        """Send a message of an answer, with the headers of CORS at its begin."""
        if message["type"] == "http.response.start":
            origin = request_headers.get("origin")
            own = self.access.cors(None if origin is None else origin.encode("latin-1"))
            message["headers"] = [*message.get("headers", ()), *own]
        await send(message)

    def preflight_response(self, request_headers: RequestHeaders) -> Response:
        """Answer a preflight: 200 with what is allowed, or 400 with a sentence."""
        answer = super().preflight_response(request_headers)
        if answer.status_code == HTTPStatus.OK:
            return answer
        refused = bytes(answer.body).decode().removeprefix("Disallowed CORS ")
        sentence = f"the preflight asks for another {refused} than allowed_origins and this server's API allow"
        return error_response(answer.status_code, sentence, {"Vary": answer.headers["Vary"]})


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
