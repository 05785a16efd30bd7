"""The response of an answer that is in pieces."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.inference.pieces import Pieces


class PiecesResponse(Response):
    """Sends each piece once the client has read most of those before, so that the connection buffers one at a time."""

    def __init__(self, pieces: Pieces, headers: Mapping[str, str]) -> None:
        length = sum(map(len, pieces))
        super().__init__(headers={**headers, "Content-Length": str(length)})
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pieces, self.pieces = self.pieces[::-1], []
        while pieces:
            piece = pieces.pop()  # what was sent is freed
            await send({"type": "http.response.body", "body": piece, "more_body": bool(pieces)})


def answer_response(pieces: Pieces, headers: Mapping[str, str]) -> Response:
    """Return the response of an answer, of which most are one piece."""
    return Response(pieces[0], headers=headers) if len(pieces) == 1 else PiecesResponse(pieces, headers)
