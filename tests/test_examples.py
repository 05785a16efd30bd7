"""The examples run as their first lines say, and print what they should."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.engines import create
from tests.programs import run_here
from tests.serving import Process
from tests.sources import ROOT
from tests.training.command_line import training_here

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MOST_LINES = 44


def run(example: str, folder: Path, *arguments: str | Path) -> str:
    """Run an example; return the lines that it prints."""
    done = run_here(ROOT / "examples" / example, folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_five_examples_each_short_and_run_as_its_docstring_says() -> None:
    assert len(EXAMPLES) == 5
    for example in EXAMPLES:
        text = example.read_text()
        assert len(text.splitlines()) <= MOST_LINES, example.name
        assert f"\npython examples/{example.name}" in text


@pytest.mark.parametrize("example", [each for each in EXAMPLES if "sys.argv" in each.read_text()], ids=str)
def test_an_example_without_arguments_says_how_it_is_run_and_which_extra_it_needs(example: Path) -> None:
    # Without the packages of the environment, as for somebody who has not installed the extra.
    command = [sys.executable, "-S", str(example)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"\npython examples/{example.name} " in done.stderr
    assert "\npip install '.[" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_is_started_and_asked(tmp_path: Path) -> None:
    # A vertical stroke is a 1, and the spikes are those of the class alone.
    assert re.fullmatch(r"class 1, spikes of each class \[0, [1-8](, 0){8}\]\n", run("serve_and_ask.py", tmp_path))


def test_a_network_of_snntorch_is_imported_and_spikes_as_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")

    def command_here(words: list[str], cwd: Path, check: bool) -> None:  # noqa: ARG001  (as the example calls it)
        assert words[:3] == [sys.executable, "-m", "spikeserve"]
        done = training_here(*words[3:], cwd=cwd)
        assert done.returncode == 0, done.stderr
        print(done.stdout, end="")

    monkeypatch.setattr(subprocess, "run", command_here)
    printed = run("import_snntorch.py", tmp_path, "repository")
    # 16 random samples, 20 steps, 32 + 10 neurons
    assert printed.endswith(f"\n0 of {16 * 20 * 42} neuron-steps differ\n")
    assert ModelRepository(tmp_path / "repository").read("mine").manifest.version == 1


def test_a_loop_of_ones_own_trains_digits_that_can_be_served(tmp_path: Path) -> None:
    assert run("train_digits.py", tmp_path, "repository").endswith("\npublished my-digits version 1\n")
    bundle = ModelRepository(tmp_path / "repository").read("my-digits")
    bundle.verify(create("reference", bundle.network))
    (accuracy,) = re.findall(r"accuracy\D*([\d.]+) ?%", bundle.card, re.IGNORECASE)[:1]
    assert float(accuracy) > 90  # of ten classes


def test_a_letter_is_streamed(shipped: Process, tmp_path: Path) -> None:
    # What docs/streaming.md prints of the same letter.
    assert run("stream_events.py", tmp_path, shipped.url).splitlines() == [
        "0.32 s: 130 touches, O",
        "0.64 s: 179 touches, O",
        "0.96 s: 161 touches, E",
        "1.28 s: 189 touches, I",
    ]


def test_a_folder_of_files_is_one_table(shipped: Process, tmp_path: Path) -> None:
    stroke, nothing = np.zeros((1, 8, 8)), np.zeros((1, 8, 8))
    stroke[0, 1:7, 3:5] = 16
    np.save(tmp_path / "b.npy", stroke.astype(np.uint8))
    np.save(tmp_path / "a.npy", np.stack([nothing, stroke]))
    (tmp_path / "notes.txt").write_text("not a sample")
    header, *rows = run("batch_of_files.py", tmp_path, shipped.url, "digits", tmp_path).splitlines()
    assert header == "file,sample,class,spikes"
    (one, silent, other) = [row.split(",") for row in rows]
    assert (one[:2], silent[:2], other[:2]) == (["a.npy", "0"], ["a.npy", "1"], ["b.npy", "0"])
    assert silent[2:] == other[2:]
    assert other[2] == "1"
