"""What FastAPI takes by itself, with the service's options of uvicorn: it parses the body and returns a constant.

`python -m benchmarks.serving.peers.floor PORT ANSWER` answers ANSWER, whatever it is asked.
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
    uvicorn.run(
        application(sys.argv[2].encode()),
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
        server_header=False,
        http="httptools",
        loop="asyncio",
        ws="none",
    )
