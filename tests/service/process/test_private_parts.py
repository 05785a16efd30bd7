"""uvicorn and httptools still have the internal parts that `service.process` uses, or a sentence says which one broke.

What the parts do is tested in test_connections.py, test_pipelining.py and test_websockets.py, and mypy knows their
types. Here a newer version's changes are named.
"""

import ast
import asyncio
import inspect
import re
import socket
import tomllib
from importlib.metadata import version
from typing import Any

import pytest
import uvicorn
from packaging.requirements import Requirement
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from spikeserve.service.process import connections, server, websockets
from tests.serving import ROOT

INSTALLED = f"uvicorn {version('uvicorn')} with httptools {version('httptools')}"
OURS: dict[type, type] = {
    connections.Connection: HttpToolsProtocol,
    connections.Flow: FlowControl,
    websockets.WebSocketConnection: WebSocketsSansIOProtocol,
    server.Server: uvicorn.Server,
}


class Plain(HttpToolsProtocol):
    """uvicorn's own connection; `latest` is the last one that was opened."""

    latest: HttpToolsProtocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        Plain.latest = self


async def request_in_progress() -> dict[str, set[str]]:
    """Serve one request with uvicorn alone, and return the names that its objects have meanwhile."""
    found: dict[str, set[str]] = {}

    async def app(_: Scope, __: Receive, send: Send) -> None:
        connection = Plain.latest
        for each in (connection, connection.cycle, connection.flow, plain.server_state):
            found[type(each).__name__] = set(dir(each))
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body"})

    plain = uvicorn.Server(uvicorn.Config(app, http=Plain, lifespan="off", ws="none", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(plain.serve([listener]))
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            await reader.read()
            writer.close()
            plain.should_exit = True
    return {"HttpToolsProtocol" if name == "Plain" else name: names for name, names in found.items()}


async def websocket() -> set[str]:
    """Return the names that uvicorn's WebSocket has."""
    config = uvicorn.Config(lambda: None, lifespan="off", ws="websockets-sansio", log_config=None)
    return set(dir(WebSocketsSansIOProtocol(config, ServerState(), {})))


@pytest.fixture(scope="module")
def there() -> dict[str, set[str]]:
    """The names of each of uvicorn's objects."""
    return asyncio.run(request_in_progress()) | {"WebSocketsSansIOProtocol": asyncio.run(websocket())}


def listed(module: Any) -> dict[str, set[str]]:
    """Return the internal parts that a file's docstring lists, by the name of their class."""
    rows = re.findall(r"(?:^- |which .* holds: of )`([\w.]+)`(.*?)(?=^- |\n\n|\Z)", module.__doc__, re.M | re.S)
    owners = {"Server.server_state": "ServerState"}
    return {owners.get(owner, owner): set(re.findall(r"`(\w+)`", names)) for owner, names in rows}


@pytest.mark.parametrize("module", [connections, websockets], ids=["connections", "websockets"])
def test_every_part_that_a_file_lists_is_there(module: Any, there: dict[str, set[str]]) -> None:
    assert listed(module)
    for owner, names in listed(module).items():
        assert names, owner
        assert names - there[owner] == set(), f"{INSTALLED}: {owner} has these no more, and service/process uses them"


@pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.__name__)
def test_a_method_that_is_overridden_has_the_parameters_of_uvicorns(ours: type) -> None:
    theirs = OURS[ours]
    for name, method in vars(ours).items():
        if name != "__init__" and inspect.isfunction(method) and hasattr(theirs, name):
            mine, its = (list(inspect.signature(each).parameters) for each in (method, getattr(theirs, name)))
            assert mine == its, f"{INSTALLED}: {theirs.__name__}.{name} has other parameters"


@pytest.mark.parametrize(
    ("module", "ours", "theirs"),
    [
        (connections, connections.Connection, "HttpToolsProtocol"),
        (websockets, websockets.WebSocketConnection, "WebSocketsSansIOProtocol"),
    ],
    ids=["connections", "websockets"],
)
def test_every_internal_part_that_a_class_uses_is_overridden_or_listed_in_its_file(
    module: Any, ours: type, theirs: str, there: dict[str, set[str]]
) -> None:
    nodes = list(ast.walk(ast.parse(inspect.getsource(ours))))
    read = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    overridden = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert (read & there[theirs]) - overridden - listed(module)[theirs] == set()


def test_no_other_file_of_the_service_uses_internal_parts_of_uvicorn() -> None:
    internal = re.compile(r"uvicorn\._|uvicorn\.protocols|server_state|httptools_impl")
    using = {path.name for path in (ROOT / "service").rglob("*.py") if internal.search(path.read_text())}
    assert using == {"connections.py", "websockets.py"}


@pytest.mark.parametrize("name", ["httptools", "uvicorn", "websockets"])
def test_a_newer_version_is_installed_only_once_this_test_has_passed_with_it(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(line) for line in project["optional-dependencies"]["serve"]]
    (specifier,) = [each.specifier for each in requirements if each.name == name]
    assert version(name) in specifier
    assert "<" in {each.operator for each in specifier}, f"{name} has no upper bound in pyproject.toml"
