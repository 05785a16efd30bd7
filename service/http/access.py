"""Access: the paths that need a key, and the web pages that may use this server.

When client keys are set, every path except `PROBES` and `PUBLIC_PAGES` needs `Authorization: Bearer <key>`; a browser's
WebSocket offers the subprotocols `spikeserve` and `spikeserve.key.<key>` instead. When admin keys are set, every path
under `CONTROL` needs an admin key.

Any page in a browser can post to this server, even to one on the loopback. Without CORS headers a page of another
origin cannot read the answer, but it could still unload a model. So only the server's own pages may, and those of the
origins in the setting `allowed_origins`. Browsers send headers that say where a request comes from, and pages cannot
forge them. Other clients send none and are let through.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import TypeAlias

from starlette.datastructures import Headers as RequestHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Scope

from spikeserve.service.errors import shown
from spikeserve.service.http import docs, page
from spikeserve.service.http.answers import error_response
from spikeserve.service.inference.decoding.validation import TOO_MANY, has_too_many
from spikeserve.service.inference.scheduling.query import Sender
from spikeserve.service.keys import AUTHORIZATION, KeyRing, bearer_key
from spikeserve.service.settings import Settings

# Where people type their key in. These pages are the same for every server of a version, and name no model.
PUBLIC_FILES = (f"{docs.FILES}/", f"{page.FILES}/")
PUBLIC_PAGES = frozenset({"/", docs.PATH, docs.DOCUMENT})
METRICS = "/metrics"
# For an orchestrator's probes; these tell only whether the process is up and ready.
PROBES = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
CONTROL = ("/v2/repository",)  # these paths, and all below them, load and unload models

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

SUBPROTOCOL = "spikeserve"  # of WebSockets; a browser offers it together with the one that holds its key
KEY_SUBPROTOCOL = "spikeserve.key."
CHALLENGE = {"WWW-Authenticate": "Bearer"}


def is_control(path: str) -> bool:
    """Return whether a path loads or unloads models, and so needs an admin key."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in CONTROL)


class Access:
    """Checks the path, headers and key of a request, and names the pages that may read the answer.

    A POST or a WebSocket from a page of an origin that is not allowed is refused. No page of another origin may load or
    unload models, allowed or not.
    """

    def __init__(self, keys: KeyRing, settings: Settings) -> None:
        self.keys = keys
        self.settings = settings
        self.origins = frozenset(settings.origins)
        self.open = PROBES | PUBLIC_PAGES | ({METRICS} if settings.public_metrics else set())

    def refusal(
        self, path: str, headers: Mapping[bytes, bytes], key: bytes | None, *, posts: bool = True
    ) -> tuple[HTTPStatus, str] | None:
        """Return the status 401 or 403 and the sentence of a request that may not be answered, else None."""
        if posts and (SITE in headers or ORIGIN in headers) and (sentence := _not_ours(headers)):
            origin = headers.get(ORIGIN, b"").decode("latin-1")
            if is_control(path) or not (ANY in self.origins or origin in self.origins):
                return HTTPStatus.FORBIDDEN, sentence
        if not self.keys:
            return None
        control, is_open = is_control(path), path in self.open or path.startswith(PUBLIC_FILES)
        if not control and (is_open or not self.keys.clients):
            return None
        return self.keys.refusal(key, control=control)

    def admit(self, scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[Response | None, Headers]:
        """Return the answer to a preflight or a refused request, else None, and the headers of CORS for any answer.

        A preflight carries no key. There are no cookies: a page sends its key.
        """
        lines = self.cors(headers.get(ORIGIN))
        if has_too_many(scope["query_string"]):
            return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, TOO_MANY), lines
        if [name for name, _ in scope["headers"]].count(AUTHORIZATION) > 1:
            return error_response(HTTPStatus.BAD_REQUEST, "the header Authorization is repeated, expected one"), lines
        method = scope.get("method", "POST")  # a WebSocket counts as a POST
        if self.origins and method == "OPTIONS" and ORIGIN in headers and PREFLIGHT in headers:
            return self._preflight(RequestHeaders(scope=scope)), ()
        if refused := self.refusal(scope["path"], headers, _key(scope), posts=method == "POST"):
            status, sentence = refused
            return error_response(status, sentence, CHALLENGE if status == HTTPStatus.UNAUTHORIZED else {}), lines
        return None, lines

    def _preflight(self, headers: RequestHeaders) -> Response:
        """Answer a preflight: 200 with the allowed methods and headers, or 400 with a sentence."""
        rules = CORSMiddleware(
            Response(),  # an application for other requests, of which none comes here
            allow_origins=self.settings.origins,
            allow_methods=METHODS,
            allow_headers=REQUEST_HEADERS,
            allow_private_network=True,
        )
        answer = rules.preflight_response(headers)
        if answer.status_code == HTTPStatus.OK:
            return answer
        refused = bytes(answer.body).decode().removeprefix("Disallowed CORS ")
        sentence = f"the preflight asks for another {refused} than allowed_origins and this server's API allow"
        return error_response(answer.status_code, sentence, {"Vary": answer.headers["Vary"]})

    def cors(self, origin: bytes | None) -> Headers:
        """Return the headers of CORS for an answer to a page of `origin`, or to another client, where that is None."""
        if not self.origins:
            return ()
        if origin is None:
            return (VARIES,)
        if ANY in self.origins:
            return ((ALLOWED, b"*"), EXPOSED, VARIES)
        return (EXPOSED, *(((ALLOWED, origin),) if origin.decode("latin-1") in self.origins else ()), VARIES)


def is_loopback(host: str) -> bool:
    """Return whether a bound address can be reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def sender_of(scope: Scope) -> Sender:
    """Return the sender of a request: its key, whether it is known or not, and the address that it came from."""
    return Sender(_key(scope) or b"", *(scope.get("client") or ("", 0)))


def _key(scope: Scope) -> bytes | None:
    if (key := bearer_key(dict(scope["headers"]).get(AUTHORIZATION, b""))) is not None:
        return key
    # A page in a browser can set no header of a WebSocket but this one.
    offered = [each for each in scope.get("subprotocols", ()) if each.startswith(KEY_SUBPROTOCOL)]
    return offered[0].removeprefix(KEY_SUBPROTOCOL).encode() if offered else None


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
PREFLIGHT = b"access-control-request-method"
ALLOWED, VARIES = b"access-control-allow-origin", (b"vary", b"Origin")
EXPOSED = (b"access-control-expose-headers", ", ".join(ANSWER_HEADERS).encode())


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
