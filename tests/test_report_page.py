"""docs/report.md tells the truth: its commands run as they stand there, and its tables are those of the code."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spikeserve.models.complexity.neuron_operations import OPERATIONS
from spikeserve.models.spec.rules import Reset
from spikeserve.training.__main__ import app
from tests.pages import ROOT, block_with, section

PAGE = (ROOT / "docs/report.md").read_text()


def test_the_command_writes_every_metric_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (arguments,) = re.findall(
        r"^\.venv/bin/python -m spikeserve (.*)$", block_with(PAGE, "sh", "-m spikeserve report"), re.MULTILINE
    )
    words = [str(ROOT / word) if word.startswith("models/") else word for word in shlex.split(arguments)]
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(app, words, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    written = json.loads(Path("report.json").read_text())
    named = set(re.findall(r"`(\w+)`", section(PAGE, "NeuroBench's metrics")))
    metrics = written["NeuroBench"]
    assert [name for name in (*metrics, *metrics["SynapticOperations"]) if name not in named] == []
    assert [name for name in metrics if name not in outcome.output] == []
    # The README says how many of the 360 held-out digits the model gets right: 99.7 %.
    assert (written["counted"]["samples"], written["counted"]["right"]) == (360, 359)


def test_the_operations_of_an_update_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)`[^|]* \| (\d+) \| (\d+) \|", section(PAGE, "NeuroBench's metrics"), re.MULTILINE)
    subtract = {(node, Reset.SUBTRACT): int(count) for node, count, _ in rows}
    assert subtract | {(node, Reset.VALUE): int(count) for node, _, count in rows} == OPERATIONS
