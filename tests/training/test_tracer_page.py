"""docs/tracer.md: its network gives the graph, the readout and the program that the page tells of."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from torch import nn

from spikeserve.training.importers.builder import Options
from spikeserve.training.importers.frameworks.convert import convert
from spikeserve.training.importers.frameworks.framework import find
from tests.pages import ROOT, blocks

PAGE = (ROOT / "docs/tracer.md").read_text()


def test_the_pages_network_is_the_graph_and_the_program_that_stand_there() -> None:
    (source,), (written,) = blocks(PAGE, "python"), blocks(PAGE, "json")
    space: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(compile(source, "page.py", "exec"), space)  # noqa: S102
    network = space["Net"]().eval().requires_grad_(requires_grad=False)
    found = convert(network, find("torch"), Options((2,), 4))
    assert [node.path for node in found.graph.nodes] == ["input", "fc", "neuron"]
    assert (found.graph.readout.node, found.graph.readout.over) == (2, "sum")
    node = found.network.spec.nodes[-1].model_dump(mode="json", exclude_none=True)
    assert node == json.loads(written)


def test_the_page_names_modules_that_are_there() -> None:
    folder = ROOT / "training/importers/frameworks"
    named = [name for names in re.findall(r"\((`\w+`(?:, `\w+`)*)\)", PAGE) for name in re.findall(r"\w+", names)]
    assert len(named) >= 9
    assert [name for name in named if not (folder / f"{name}.py").exists()] == []
