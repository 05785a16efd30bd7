"""The response of an answer, which is in one or more pieces."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.inference.pieces import Pieces

JSON_HEADERS = ((b"content-type", b"application/json"),)


class PiecesResponse(Response):
    """Sends each piece once the client has read most of those before, so that the connection buffers one at a time.

    The names of `headers` are in lower case. Starlette's own response would encode them again for every answer.
    """

    def __init__(self, pieces: Pieces, headers: Iterable[tuple[bytes, bytes]]) -> None:
        length = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        self.raw_headers = [*headers, (b"content-length", b"%d" % length)]
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the answer."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        pieces, self.pieces = self.pieces[::-1], []
        while pieces:
            piece = pieces.pop()  # what was sent is freed
            await send({"type": "http.response.body", "body": piece, "more_body": bool(pieces)})
