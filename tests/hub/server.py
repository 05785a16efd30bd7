"""What `huggingface_hub` asks a Hub for repositories of models, answered on the loopback from memory.

It answers the paths that the package's HfFileSystem uses to list, read, write and remove files, in the form that the
Hub answers them, with a commit for each change and lists in pages. Left out are the uploads of large files, which go to
the Hub's own storage rather than into a commit, keys, and who may do what.
"""

import base64
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from functools import cache
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

PAGE = 4  # entries of a list in one answer; the Hub has 1000

Files = dict[str, bytes]


@dataclass
class Repository:
    """The commits of a repository, each as the files that it leaves; `main` is the last."""

    commits: list[Files] = field(default_factory=lambda: [{}])

    def sha(self, index: int) -> str:
        return hashlib.sha1(f"{id(self)} {index}".encode(), usedforsecurity=False).hexdigest()

    @property
    def head(self) -> str:
        return self.sha(len(self.commits) - 1)

    def files(self, revision: str) -> Files:
        if revision == "main":
            return self.commits[-1]
        for index, files in enumerate(self.commits):
            if self.sha(index) == revision:
                return files
        raise missing("RevisionNotFound")


repositories: dict[str, Repository] = {}


def missing(what: str) -> HTTPException:
    return HTTPException(404, what, {"X-Error-Code": what})


def asked(request: Request) -> Repository:
    if (found := repositories.get("{owner}/{name}".format(**request.path_params))) is None:
        raise missing("RepoNotFound")
    return found


def entry(path: str, content: bytes | None) -> dict[str, Any]:
    """Return a list's entry for a file, or for a folder, which has no content."""
    oid = hashlib.sha1(content or b"", usedforsecurity=False).hexdigest()
    return {"type": "directory" if content is None else "file", "path": path, "oid": oid, "size": len(content or b"")}


def info(request: Request) -> Response:
    repository = asked(request)
    repository.files(request.path_params.get("revision", "main"))
    return JSONResponse({"id": "{owner}/{name}".format(**request.path_params), "sha": repository.head, "siblings": []})


def tree(request: Request) -> Response:
    """List a folder, in pages; the next one is named in the header Link."""
    files = asked(request).files(request.path_params["revision"])
    folder = request.path_params.get("path", "").strip("/")
    below = {path for path in files if not folder or path.startswith(f"{folder}/")}
    if folder and not below:
        raise missing("EntryNotFound")
    parents = {path[: each.start()] for path in below for each in re.finditer("/", path)}
    folders = {each for each in parents if not folder or each.startswith(f"{folder}/")}
    entries = [entry(path, files.get(path)) for path in sorted(below | folders)]
    if request.query_params.get("recursive", "false").lower() != "true":
        depth = folder.count("/") + 1 if folder else 0
        entries = [each for each in entries if each["path"].count("/") == depth]
    start = int(request.query_params.get("cursor", 0))
    following = {}
    if start + PAGE < len(entries):
        following["Link"] = f'<{request.url.include_query_params(cursor=start + PAGE)}>; rel="next"'
    return JSONResponse(entries[start : start + PAGE], headers=following)


def resolve(request: Request) -> Response:
    """Send a file, or the part that is asked for; weights come from another address, as the Hub's large files do."""
    content = asked(request).files(request.path_params["revision"]).get(request.path_params["path"])
    if content is None:
        raise missing("EntryNotFound")
    if request.url.path.endswith(".safetensors") and "large" not in request.query_params:
        return RedirectResponse(request.url.include_query_params(large=1), 302)
    if (part := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))) is None:
        return Response(content)
    start, end = int(part[1]), int(part[2]) + 1
    sent = content[start:end]
    return Response(sent, 206, {"Content-Range": f"bytes {start}-{start + len(sent) - 1}/{len(content)}"})


async def preupload(request: Request) -> Response:
    """Say that the commit holds every file itself."""
    asked(request)
    wanted = (await request.json())["files"]
    return JSONResponse(
        {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in wanted]}
    )


async def commit(request: Request) -> Response:
    """Add and remove files on `main`; any other revision is a commit, which does not change."""
    repository = asked(request)
    if request.path_params["revision"] != "main":
        raise HTTPException(400, "Invalid rev id", {"X-Error-Message": "Invalid rev id, expected a branch"})
    files = dict(repository.commits[-1])
    for line in (await request.body()).splitlines():
        change = json.loads(line)
        match change["key"], change["value"]:
            case "file", value:
                files[value["path"]] = base64.b64decode(value["content"])
            case "deletedFile", value:
                del files[value["path"]]
            case "deletedFolder", value:
                files = {path: files[path] for path in files if not path.startswith(f"{value['path'].rstrip('/')}/")}
            case "header", _:
                pass
            case key, _:
                raise HTTPException(501, f"{key} is not answered here")
    repository.commits.append(files)
    at = "{}{owner}/{name}/commit/".format(request.base_url, **request.path_params)
    return JSONResponse({"commitUrl": f"{at}{repository.head}", "commitOid": repository.head})


API = "/api/models/{owner}/{name}"

app = Starlette(
    routes=[
        Route(API, info),
        Route(f"{API}/revision/{{revision}}", info),
        Route(f"{API}/tree/{{revision}}", tree),
        Route(f"{API}/tree/{{revision}}/{{path:path}}", tree),
        Route(f"{API}/preupload/{{revision}}", preupload, methods=["POST"]),
        Route(f"{API}/commit/{{revision}}", commit, methods=["POST"]),
        Route("/{owner}/{name}/resolve/{revision}/{path:path}", resolve),
    ]
)


@cache
def start() -> None:
    """Run the server until this process ends; `huggingface_hub` reads its address once, when it is imported."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    listening = server.config.bind_socket()
    os.environ["HF_ENDPOINT"] = "http://{}:{}".format(*listening.getsockname())
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    Thread(target=server.run, args=([listening],), daemon=True).start()
