"""uvicorn and httptools still have the internal parts that `service.process` uses, or a sentence says which one broke.

What the parts do is tested in test_connections.py and test_lifecycle.py; here a newer version's changes are named.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import logging
import re
import socket
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.server import ServerProtocol

from spikeserve.service.process import connections, websockets
from tests.serving import ROOT

METHODS: dict[type, dict[str, tuple[str, ...]]] = {
    HttpToolsProtocol: {
        "__init__": ("config", "server_state", "app_state", "_loop"),
        "_should_upgrade": (),
        "_unset_keepalive_if_required": (),
        "connection_lost": ("exc",),
        "connection_made": ("transport",),
        "data_received": ("data",),
        "handle_websocket_upgrade": (),
        "on_body": ("body",),
        "on_header": ("name", "value"),
        "on_message_begin": (),
        "on_headers_complete": (),
        "on_message_complete": (),
        "on_response_complete": (),
        "pause_writing": (),
        "resume_writing": (),
        "shutdown": (),
        "timeout_keep_alive_handler": (),
    },
    WebSocketsSansIOProtocol: {
        "__init__": ("config", "server_state", "app_state", "_loop"),
        "connection_lost": ("exc",),
        "data_received": ("data",),
        "handle_cont": ("event",),
        "handle_parser_exception": (),
        "handle_ping": (),
        "keepalive_timeout": (),
        "on_task_complete": ("task",),
        "pause_writing": (),
        "receive": (),
        "resume_writing": (),
        "send": ("message",),
        "send_receive_event_to_app": (),
    },
    FlowControl: {"__init__": ("transport",), "pause_reading": (), "resume_reading": ()},
    uvicorn.Server: {"handle_exit": ("sig", "frame"), "serve": ("sockets",), "startup": ("sockets",)},
}
CONNECTION = {
    "client": tuple,
    "cycle": RequestResponseCycle,
    "expect_100_continue": bool,
    "flow": FlowControl,
    "headers": list,
    "loop": asyncio.AbstractEventLoop,
    "parser": httptools.HttpRequestParser,
    "scope": dict,
    "server_state": ServerState,
    "timeout_keep_alive": int,
    "timeout_keep_alive_task": type(None),  # while a request is in progress, else a timer
    "transport": asyncio.Transport,
    "url": bytes,
}
CYCLE = {
    "keep_alive": bool,
    "more_body": bool,
    "response_complete": bool,
    "response_started": bool,
}
FLOW = {"write_paused": bool}
WEBSOCKET = {
    "close_sent": bool,
    "conn": ServerProtocol,
    "curr_msg_data_type": str,
    "frames": list,
    "handshake_complete": bool,
    "handshake_initiated": bool,
    "logger": logging.Logger,
    "loop": asyncio.AbstractEventLoop,
    "ping_timeout": float,
    "pong_timer": type(None),
    "queue": asyncio.Queue,
    "writable": asyncio.Event,
}
SERVER = {"should_exit": bool, "started": bool}
STATE = {"connections": set, "default_headers": list, "tasks": set, "total_requests": int}
INSTALLED = f"uvicorn {version('uvicorn')} with httptools {version('httptools')}"


def changed_method(owner: type, name: str, expected: tuple[str, ...]) -> str | None:
    """Return a sentence if a method is not there or has other parameters than `expected`."""
    method = getattr(owner, name, None)
    if method is None:
        return f"{INSTALLED}: {owner.__name__}.{name} is gone, and service/process uses it"
    found = tuple(inspect.signature(method).parameters)[1:]  # without self
    if found != expected:
        return (
            f"{INSTALLED}: {owner.__name__}.{name} has the parameters {found}, and service/process expects {expected}"
        )
    return None


def changed_attributes(instance: object, expected: dict[str, Any]) -> list[str]:
    """Return a sentence for each attribute that is not there or has another type than `expected`."""
    owner = type(instance).__name__
    sentences = []
    for name, kind in expected.items():
        if not hasattr(instance, name):
            sentences.append(f"{INSTALLED}: {owner}.{name} is gone, and service/process uses it")
        elif not isinstance(found := getattr(instance, name), kind):
            was, wanted = type(found).__name__, kind.__name__
            sentences.append(f"{INSTALLED}: {owner}.{name} is of type {was}, and service/process expects {wanted}")
    return sentences


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in METHODS.items() for name in names])
def test_each_method_has_the_parameters_that_it_is_called_or_overridden_with(owner: type, name: str) -> None:
    assert changed_method(owner, name, METHODS[owner][name]) is None


class Plain(HttpToolsProtocol):
    """uvicorn's own connection; `latest` is the last one that was opened."""

    latest: HttpToolsProtocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        Plain.latest = self


@dataclass
class Seen:
    """What an application saw of uvicorn while it was called: changes as sentences, and a connection's attributes."""

    changes: list[str]
    attributes: set[str]


async def request_in_progress() -> Seen:
    """Serve one request with uvicorn alone, and look at uvicorn from inside of it."""
    seen = Seen([f"{INSTALLED}: uvicorn.Server did not call the application"], set())

    async def app(_: Scope, __: Receive, send: Send) -> None:
        connection, state = Plain.latest, server.server_state
        seen.attributes = set(dir(connection))
        seen.changes = [
            *changed_attributes(connection, CONNECTION),
            *changed_attributes(connection.cycle, CYCLE),
            *changed_attributes(connection.flow, FLOW),
            *changed_attributes(server, SERVER),
            *changed_attributes(state, STATE),
        ]
        if asyncio.current_task() not in state.tasks:
            seen.changes.append(f"{INSTALLED}: ServerState.tasks does not hold the task of a request")
        if connection not in state.connections:
            seen.changes.append(f"{INSTALLED}: ServerState.connections does not hold an open connection")
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body"})

    server = uvicorn.Server(uvicorn.Config(app, http=Plain, lifespan="off", ws="none", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve([listener]))
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            await reader.read()
            writer.close()
            server.should_exit = True
    return seen


@pytest.fixture(scope="module")
def seen() -> Seen:
    return asyncio.run(request_in_progress())


def test_a_request_in_progress_has_the_attributes_that_are_read_and_set(seen: Seen) -> None:
    assert seen.changes == []


def test_every_internal_part_that_a_connection_uses_is_checked_here_and_listed_in_its_file(seen: Seen) -> None:
    # All that `Connection` overrides or reads from `self`, and that uvicorn defines rather than asyncio or we.
    used = set()
    for node in ast.walk(ast.parse(inspect.getsource(connections.Connection))):
        if isinstance(node, ast.FunctionDef):
            used.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            used.add(node.attr)
    used &= seen.attributes
    assert used == {*METHODS[HttpToolsProtocol], *CONNECTION}
    methods = {"_should_upgrade", "_unset_keepalive_if_required", "handle_websocket_upgrade"}
    listed = {*CONNECTION, *CYCLE, *FLOW, *STATE, *methods, "pause_reading", "resume_reading"}
    assert {name for name in listed if f"`{name}`" not in (connections.__doc__ or "")} == set()


def test_every_internal_part_that_a_websocket_uses_is_checked_here_and_listed_in_its_file() -> None:
    async def made() -> WebSocketsSansIOProtocol:
        config = uvicorn.Config(lambda: None, lifespan="off", ws="websockets-sansio", log_config=None)
        return WebSocketsSansIOProtocol(config, ServerState(), {})

    plain = asyncio.run(made())
    assert changed_attributes(plain, WEBSOCKET) == []
    used = set()
    for node in ast.walk(ast.parse(inspect.getsource(websockets.WebSocketConnection))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            used.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            used.add(node.attr)
    used &= set(dir(plain))
    assert used == {*METHODS[WebSocketsSansIOProtocol], *WEBSOCKET, "transport"}
    assert {name for name in WEBSOCKET if f"`{name}`" not in (websockets.__doc__ or "")} == set()


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
