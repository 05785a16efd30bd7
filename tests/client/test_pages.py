"""docs/streaming.md and docs/client.md tell the truth: their blocks run as they stand there, in their order."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spikeserve
from spikeserve import errors
from spikeserve.options import RETRIES, STATE_EVERY, SessionOptions
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.settings import Settings
from tests.pages import LOCAL, ROOT, block_with, blocks, section
from tests.serving import Process

STREAMING = (ROOT / "docs/streaming.md").read_text()
CLIENT = (ROOT / "docs/client.md").read_text()
LETTERS = ["O", "O", "E", "I"]


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(block: str, service: Process, folder: Path) -> str:
    return run(["/bin/bash", "-c", block.replace(LOCAL, service.url.removeprefix("http://"))], folder)


def python(block: str, service: Process, folder: Path) -> str:
    return run([sys.executable, "-c", block.replace(LOCAL, service.url.removeprefix("http://"))], folder)


@pytest.fixture(scope="module")
def folder(shipped: Process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the page's first blocks make."""
    folder = tmp_path_factory.mktemp("page")
    text = section(STREAMING, "With curl")
    shell(block_with(text, "sh", "examples.json"), shipped, folder)
    python(block_with(text, "python", "tofile"), shipped, folder)
    return folder


def lines(output: str) -> list[dict[str, Any]]:
    """Return lines without how long they took."""
    found = [json.loads(line) for line in output.splitlines()]
    return [{name: value for name, value in line.items() if name != "lag_ms"} for line in found]


def test_curl_streams_the_pages_letter(shipped: Process, folder: Path) -> None:
    text = section(STREAMING, "With curl")
    found = lines(shell(block_with(text, "sh", "letter.events"), shipped, folder))
    (answers,) = blocks(text, "json")
    window, end = lines(answers.replace("\n  ", "").replace("\n    ", ""))
    assert [found[1], found[-1]] == [window, end]
    assert found[3]["label"] == "I"
    messages = lines(shell(block_with(text, "sh", "printf"), shipped, folder))
    assert [each.get("events") for each in messages] == [2, 1, 0, 0, 3]


def test_the_client_prints_what_the_page_says(shipped: Process, folder: Path) -> None:
    text = section(STREAMING, "The Python client")
    (program,), (printed,) = blocks(text, "python"), blocks(text, "text")
    assert python(program, shipped, folder) == printed
    assert re.findall(r", (\w)$", printed, re.MULTILINE) == LETTERS


def test_a_websocket_by_hand_hears_the_same(shipped: Process, folder: Path) -> None:
    (program,) = blocks(section(STREAMING, "A WebSocket by hand"), "python")
    assert python(program, shipped, folder).splitlines() == [f"window {letter}" for letter in LETTERS] + ["end None"]


def test_a_sequence_of_tritons_client_reads_the_same(shipped: Process, folder: Path) -> None:
    pytest.importorskip("tritonclient.http", reason="tritonclient is not installed here: it is of the extra 'clients'")
    programs = blocks(section(STREAMING, "Sequences of the protocol v2"), "python")
    assert python("\n".join(programs), shipped, folder).splitlines() == LETTERS * 2  # held here, and taken along


def test_curl_and_the_client_stream_values(service: Process, tmp_path: Path) -> None:
    found = lines(shell(block_with(STREAMING, "sh", '"values"'), service, tmp_path))
    printed = python(block_with(STREAMING, "python", "0.4"), service, tmp_path)
    assert printed.splitlines() == [f"after {each['t']} steps: {each['label']}" for each in found[:-1]]
    assert [(each["t"], each["steps"]) for each in found[:-1]] == [(2, 2), (3, 1)]
    assert found[-1] == {"type": "end", "windows": 2, "steps": 3}


def test_the_blocks_of_the_clients_page_run(shipped: Process, folder: Path) -> None:
    predictions, session, service_of_theirs = blocks(CLIENT, "python")
    stroke, nothing = python(predictions, shipped, folder).splitlines()
    assert int(nothing.split()[1]) < int(stroke.split()[1])
    assert python(session, shipped, folder).splitlines() == [
        *(f"{number} {letter}" for number, letter in enumerate(LETTERS)),
        "Summary(windows=4, events=529, late=0)",
    ]
    asks = """
from fastapi.testclient import TestClient
with TestClient(app) as asked:
    stroke = [[0, 0, 0, 16, 0, 0, 0, 0]] * 8
    print(asked.post("/digit", json=stroke).json(), asked.post("/digit", json=[[17]]).json())
"""
    assert python(service_of_theirs + asks, shipped, folder) == (
        "{'digit': '1'} {'detail': 'the body is an array of shape 1×1×1, expected samples×1×8×8, or one'}\n"
    )


def test_the_pages_examples_are_there() -> None:
    assert {ROOT / path for path in re.findall(r"`(examples/live/\w+\.py)`", STREAMING)} == set(
        (ROOT / "examples/live").glob("*.py")
    )


def test_the_page_names_every_option_and_every_limit_of_sessions() -> None:
    table = section(STREAMING, "Options")
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(StreamOptions.model_fields)
    limits = {f"--{name.replace('_', '-')}" for name in Settings.model_fields if "session" in name}
    assert limits - set(re.findall(r"`(--[\w-]+)`", section(STREAMING, "Limits"))) == set()


def test_the_options_of_the_client_are_those_of_a_stream() -> None:
    own = {"model", "version", "state", "state_every", "retries"}
    assert set(SessionOptions.__annotations__) - own == set(StreamOptions.model_fields)
    assert f"every {STATE_EVERY} windows" in CLIENT
    assert f"After {RETRIES} tries" in CLIENT


def test_the_tree_of_errors_is_the_pages() -> None:
    (tree,) = blocks(section(CLIENT, "Errors"), "text")
    assert tree.strip() in inspect.getdoc(errors).replace("\n    ", "\n").strip()  # type: ignore[union-attr]
    named = set(re.findall(r"^[│├└─ ]*(\w+)", tree, re.MULTILINE))
    classes = {name for name, each in inspect.getmembers(spikeserve, inspect.isclass) if issubclass(each, Exception)}
    assert named == classes


def test_the_names_of_the_package_are_there_and_sorted_as_they_are_said() -> None:
    public = {
        name for name in vars(spikeserve) if not name.startswith("_") and name not in sys.modules["spikeserve"].__all__
    }
    modules = {path.stem for path in (ROOT / "spikeserve").iterdir()}
    assert public - modules == set()
    assert all(hasattr(spikeserve, name) for name in spikeserve.__all__)
