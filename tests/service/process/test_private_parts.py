"""uvicorn and httptools still have the internal parts that `service.process` uses, or a sentence says which one broke.

What the parts do is tested in test_connections.py, test_pipelining.py and test_websockets.py. Here a newer version's
changes are named.
"""

import ast
import asyncio
import inspect
import re
import tomllib
from importlib.metadata import version
from typing import Any

import pytest
import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from spikeserve.service.process import connections, server, websockets
from tests.serving import ROOT

INSTALLED = f"uvicorn {version('uvicorn')} with httptools {version('httptools')}"
OURS: dict[type, type] = {websockets.WebSocketConnection: WebSocketsSansIOProtocol, server.Server: uvicorn.Server}


async def websocket() -> set[str]:
    """Return the names that uvicorn's WebSocket has."""
    config = uvicorn.Config(lambda: None, lifespan="off", ws="websockets-sansio", log_config=None)
    return set(dir(WebSocketsSansIOProtocol(config, ServerState(), {})))


def listed(module: Any) -> dict[str, set[str]]:
    """Return the internal parts that a file's docstring lists, by the name of their class."""
    rows = re.findall(r"(?:^- |which .* holds: of )`([\w.]+)`(.*?)(?=^- |\n\n|\Z)", module.__doc__, re.M | re.S)
    return {owner: set(re.findall(r"`(\w+)`", names)) for owner, names in rows}


def test_a_connection_uses_of_uvicorn_what_its_file_lists_and_that_is_ten_names() -> None:
    names = listed(connections)
    for owner, there in (("Config", uvicorn.Config(lambda: None)), ("ServerState", ServerState())):
        assert names[owner] - set(dir(there)) == set(), f"{INSTALLED}: {owner} has these no more"
    used = set(re.findall(r"\b(?:config|server_state)\.(\w+)", inspect.getsource(connections)))
    assert used == names["Config"] | names["ServerState"]
    assert sum(map(len, names.values())) == 10


@pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.__name__)
def test_a_method_that_is_overridden_has_the_parameters_of_uvicorns(ours: type) -> None:
    theirs = OURS[ours]
    for name, method in vars(ours).items():
        if name != "__init__" and inspect.isfunction(method) and hasattr(theirs, name):
            mine, its = (list(inspect.signature(each).parameters) for each in (method, getattr(theirs, name)))
            assert mine == its, f"{INSTALLED}: {theirs.__name__}.{name} has other parameters"


def test_every_internal_part_that_a_stream_uses_is_there_and_overridden_or_listed_in_its_file() -> None:
    there, (names,) = asyncio.run(websocket()), listed(websockets).values()
    assert names - there == set(), f"{INSTALLED}: WebSocketsSansIOProtocol has these no more, and ours uses them"
    nodes = list(ast.walk(ast.parse(inspect.getsource(websockets.WebSocketConnection))))
    read = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    overridden = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert (read & there) - overridden - names == set()


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
