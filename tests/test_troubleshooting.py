"""The messages that the page of questions explains are the code's, and the neuron of the concepts is right."""

from __future__ import annotations

import ast
import re
from functools import cache

import numpy as np
import pytest

from spikeserve.models.coding import encode
from spikeserve.models.engines import Record
from spikeserve.models.engines.reference import ReferenceEngine
from tests.networks import network_of
from tests.pages import ROOT, section

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
CONCEPTS = (ROOT / "docs/concepts.md").read_text()
TABLES = "".join(section(PAGE, title) for title in re.findall(r"^## (Messages.*)$", PAGE, re.MULTILINE))
MESSAGES = re.findall(r"^\|(?: \d{3} \|)? `([^`]+)` \|", TABLES, re.MULTILINE)


@cache
def texts() -> str:
    """Return all texts of the code, a line each; what an f-string fills in separates two."""
    found: list[str] = []
    for package in ("models", "service", "training"):
        for path in (ROOT / package).rglob("*.py"):
            found += [
                node.value
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
    return "\n".join(found)


def test_the_page_explains_messages() -> None:
    assert len(MESSAGES) > 15
    assert len(MESSAGES) == TABLES.count("\n| ") - TABLES.count("message |") - 1  # one message is PyTorch's own


def test_the_translation_explains_the_same_messages() -> None:
    translated = (ROOT / "docs/zh-tw/troubleshooting.md").read_text()
    found = re.findall(r"^\|(?: \d{3} \|)? `([^`]+)`", translated, re.MULTILINE)
    assert found == re.findall(r"^\|(?: \d{3} \|)? `([^`]+)`", TABLES, re.MULTILINE)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_one_of_the_code(message: str) -> None:
    for part in filter(None, (each.strip(" ,':") for each in message.split("…"))):
        assert part in texts()


def test_the_neuron_of_the_concepts_has_the_membranes_and_spikes_of_its_table() -> None:
    rows = {
        row[0]: [float(cell) for cell in row[1:]]
        for row in (
            line.strip("| ").split(" | ") for line in CONCEPTS.splitlines() if re.match(r"\| [a-z ]+ \| ", line)
        )
    }
    network = network_of(
        [
            {"type": "Linear", "name": "in", "in_features": 1, "out_features": 1, "bias": False},
            {"type": "LIF", "name": "out", "decay": 0.75},
        ],
        {"in.weight": [[0.4]]},
        input={"shape": [1], "low": 0, "high": 1},
        coding="direct",
        time_steps=8,
        labels=["one"],
    )
    result, _ = ReferenceEngine(network).run(
        encode(np.ones((1, 1), np.float32), network.spec), record=Record.RASTER | Record.MEMBRANE
    )
    membrane = result.membranes["out"][:, 0, 0]
    assert result.rasters["out"][:, 0, 0].tolist() == rows["spike"]
    assert membrane == pytest.approx(rows["after the reset"], abs=0.0005)
    assert 0.75 * np.append(0, membrane[:-1]) + 0.4 == pytest.approx(rows["charged"], abs=0.0005)
