"""The API's documentation, /docs: Swagger UI, with every file from this server because people type API keys into it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from spikeserve.service.http.page import guarded

PATH = "/docs"
FILES = f"{PATH}/files"
DOCUMENT = "/openapi.json"


def install_docs(app: FastAPI, document: Callable[[], dict[str, Any]]) -> None:
    """Add the OpenAPI document and Swagger UI, whose files come from fastapi-offline, to `app`.

    They are plain routes because FastAPI's own docs routes and mounted files have no path template to label metrics by.
    """
    static = StaticFiles(packages=[("fastapi_offline", "static")])

    @app.get(DOCUMENT, include_in_schema=False)
    async def described() -> Response:
        return JSONResponse(document())

    @app.get(f"{FILES}/{{name}}", include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        # Range is ignored, as HTTP allows: Starlette would answer a bad one with an error that is not our JSON.
        request.scope["headers"] = [header for header in request.scope["headers"] if header[0] != b"range"]
        return await static.get_response(name, request.scope)

    @app.get(PATH, include_in_schema=False)
    async def docs(request: Request) -> Response:
        html, headers = _page(request.app.title)
        return Response(html, headers=headers, media_type="text/html")


@cache
def _page(title: str) -> tuple[str, dict[str, str]]:
    """Return the page and its headers."""
    page = get_swagger_ui_html(
        openapi_url=DOCUMENT,
        title=title,
        swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
        swagger_css_url=f"{FILES}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    html = bytes(page.body).decode()
    script = f"script-src 'self' '{source_of('script', html)}'"
    # Swagger UI sets inline styles.
    return html, guarded(script, "style-src 'self' 'unsafe-inline'", "img-src 'self' data:")


def source_of(tag: str, html: str) -> str:
    """Return the Content-Security-Policy source of the page's one inline element of that tag."""
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
