"""docs/data.md tells the truth: its examples run as they stand there, and it names every data set and flag.

docs/report.md tells the truth: its commands run as they stand there, and its tables are those of the code.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from spikeserve.models.bundle.bundle import Bundle
from spikeserve.models.coding import encode
from spikeserve.models.engines import create
from spikeserve.models.recordings.files import MAX_BYTES, MAX_EVENTS
from spikeserve.models.spec import Coding
from spikeserve.models.spec.rules import Reset
from spikeserve.plugins.report.complexity.neuron_operations import OPERATIONS
from spikeserve.training.config import AugmentConfig, DataConfig
from spikeserve.training.data.datasets import LOADERS, load
from tests.apps import app
from tests.pages import ROOT, block_with, curl, section
from tests.programs import run_here
from tests.serving import running
from tests.training.command_line import train_from_page

PAGE = (ROOT / "docs/data.md").read_text()


@pytest.mark.deep
def test_a_time_series_from_raw_readings_to_the_served_answer(tmp_path: Path) -> None:
    text = section(PAGE, "Time series")
    train_from_page(text, "weather.npz", tmp_path)
    with running(tmp_path / "repository") as service:
        answer = curl(block_with(text, "sh", "curl"), service.url)
    assert answer["time_steps"] == 20
    assert answer["predictions"][0]["label"] == "1"  # the temperature rises


@pytest.mark.deep
def test_a_table_from_a_csv_to_the_answer_for_raw_values(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    train_from_page(section(PAGE, "Tables and pictures"), "wine.csv", tmp_path)
    rows = np.loadtxt(tmp_path / "wine.csv", delimiter=",", skiprows=1)
    network = Bundle.read(tmp_path / "repository" / "wine" / "1").network
    result, _ = create("event", network).run(encode(rows[:, 1:-1].astype(np.float32), network.spec))
    assert (result.class_index == rows[:, -1]).mean() >= 0.95  # of raw values; with one range for all features 0.8


def test_a_table_with_gaps_at_uneven_times_becomes_sequences(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    rows = ["sample,label,time,ax,ay"]
    rng = np.random.default_rng(0)
    for sample in range(20):
        last = 1 + sample % 3
        for time in (0, *rng.uniform(0, last, 30), last):
            ax = 2 * time if time in (0, last) or rng.random() > 0.2 else ""
            rows.append(f"{sample},{'ab'[sample % 2]},{time},{ax},{last}")
    (tmp_path / "readings.csv").write_text("\n".join(rows))
    assert run_here(block_with(PAGE, "python", "read_csv"), tmp_path).returncode == 0
    data = load(DataConfig(file=tmp_path / "readings.npz"), Coding.CURRENT)
    assert data.class_names == ("a", "b")
    assert data.training.lengths is not None
    for sample, length in zip(data.training.samples, data.training.lengths, strict=True):
        assert length == 1 + 10 * sample[0, 1]
        np.testing.assert_allclose(sample[:length, 0], 2 * np.arange(length) / 10, atol=1e-5)


def test_a_sound_becomes_a_raster_of_the_shape_that_the_page_says(tmp_path: Path) -> None:
    program = block_with(section(PAGE, "Spoken digits"), "python", "AudioToSpikes")
    done = run_here(program, tmp_path)
    (said,) = re.findall(r"# (\(.*?\))", program)
    assert done.stdout.strip() == said


def test_every_data_set_and_every_way_to_vary_samples_is_on_the_page() -> None:
    named = set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.DOTALL | re.MULTILINE)))
    assert set(LOADERS) - named == set()
    said = {name.removeprefix("--").replace("-", "_") for name in named}  # as a flag, or as a field of the file
    assert AugmentConfig.model_fields.keys() - said == set()


def test_the_page_names_no_flag_that_there_is_not() -> None:
    flags = set(re.findall(r"`--([a-z][a-z-]*)", PAGE)) - {"dataset"}
    fields = {*DataConfig.model_fields, *AugmentConfig.model_fields}
    assert {flag for flag in flags if flag.replace("-", "_") not in fields} == {"help"} & flags


def test_the_page_gives_the_bounds_of_a_recordings_file() -> None:
    bounds = f"at most {MAX_BYTES // 2**20} MiB, and of these at most 2^{MAX_EVENTS.bit_length() - 1} events"
    assert bounds in PAGE


REPORT_PAGE = (ROOT / "docs/report.md").read_text()


def test_the_command_writes_every_metric_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (arguments,) = re.findall(
        r"^\.venv/bin/python -m spikeserve (.*)$", block_with(REPORT_PAGE, "sh", "-m spikeserve report"), re.MULTILINE
    )
    words = [str(ROOT / word) if word.startswith("models/") else word for word in shlex.split(arguments)]
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(app, words, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    written = json.loads(Path("report.json").read_text())
    named = set(re.findall(r"`(\w+)`", section(REPORT_PAGE, "NeuroBench's metrics")))
    metrics = written["NeuroBench"]
    assert [name for name in (*metrics, *metrics["SynapticOperations"]) if name not in named] == []
    assert [name for name in metrics if name not in outcome.output] == []
    # The README says how many of the 360 held-out digits the model gets right: 99.7 %.
    assert (written["counted"]["samples"], written["counted"]["right"]) == (360, 359)


def test_the_operations_of_an_update_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| `(\w+)`[^|]* \| (\d+) \| (\d+) \|", section(REPORT_PAGE, "NeuroBench's metrics"), re.MULTILINE
    )
    subtract = {(node, Reset.SUBTRACT): int(count) for node, count, _ in rows}
    assert subtract | {(node, Reset.VALUE): int(count) for node, _, count in rows} == OPERATIONS
