"""What FastAPI takes by itself, with the service's options of uvicorn: it parses the body and returns a constant.

`python -m benchmarks.serving.peers.floor BUNDLE PORT BYTES` answers BYTES bytes, whatever it is asked.
"""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, Request, Response


def application(content: bytes) -> FastAPI:
    """Return the application."""
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        await request.json()
        return Response(content, media_type="application/json")

    return app


if __name__ == "__main__":
    app = application(b'"' + b"0" * (int(sys.argv[3]) - 2) + b'"')
    uvicorn.run(
        app,
        port=int(sys.argv[2]),
        log_level="warning",
        access_log=False,
        server_header=False,
        http="httptools",
        loop="asyncio",
        ws="none",
    )
