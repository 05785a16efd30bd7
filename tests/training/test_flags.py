"""The flags of `fit`: one for each field of the configuration, made from the model alone.

The commands, as a user types them: fit, evaluate, export, and what they say when something is wrong.

What the command line makes of an error: a sentence for a user's mistake, and nothing for a fault of the code.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import ENGINES, create
from spikeserve.training.commands.flags import typed_fields
from spikeserve.training.commands.runs import FLAGS
from spikeserve.training.commands.sentences import MOST, sentence_of
from spikeserve.training.config import TrainingConfig
from spikeserve.training.errors import InvalidConfig, NotConvertible
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.report.evaluate import ACCURACY_VARIES
from tests.apps import app, command_of, commands
from tests.training.command_line import training_here


def entries(help_text: str) -> dict[str, str]:
    """Return the help of each flag as one line; raises AssertionError for a flag that is listed twice."""
    found: dict[str, str] = {}
    name = ""
    for line in help_text.splitlines():
        if row := re.fullmatch(r"│ (.*) │", line):
            if begins := re.match(r"--([a-z-]+)\s", row[1]):
                name = begins[1]
                assert name not in found, name
                found[name] = ""
            found[name] = " ".join([*found[name].split(), *row[1].split()])
    return found


@pytest.fixture(scope="module")
def help_of_fit() -> str:
    result = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    return result.output


TYPED = [flag for flag in FLAGS if not flag.schema.get("file")]


def test_help_at_80_columns_shows_every_flag_once_with_its_default_and_cuts_nothing(help_of_fit: str) -> None:
    assert max(map(len, help_of_fit.splitlines())) <= 80
    shown = entries(help_of_fit)
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)
    assert {flag.text[2:] for flag in TYPED} < set(shown)
    assert not {flag.text[2:] for flag in FLAGS if flag not in TYPED} & set(shown)
    for flag in TYPED:
        default = flag.default if flag.shown_default is None else f"({flag.shown_default})"
        # A long default may break at its hyphens, and is joined with blanks above.
        assert f"[default:{default}]".replace(" ", "") in shown[flag.text[2:]].replace(" ", ""), flag.text


def test_help_has_a_panel_for_each_section_after_what_is_needed_first(help_of_fit: str) -> None:
    titles = re.findall(r"^╭─ (.+?) ─+╮$", help_of_fit, re.MULTILINE)
    sections = [name for name, field in TrainingConfig.model_fields.items() if isinstance(field.default, BaseModel)]
    assert titles == ["Options", "whole run", *sections]
    (first, *_) = re.split(r"^╰", help_of_fit, flags=re.MULTILINE)
    words = re.findall(r"^│ --([a-z]+)", first, re.MULTILINE)
    assert words == ["file", "architecture", "coding", "epochs", "repository", "help"]


MORE = [("verify", "--against", "torch:")]  # with the flags of an importer


@pytest.mark.parametrize("words", [*(words for words, _ in commands()), *MORE], ids=" ".join)
def test_every_command_shows_the_default_of_every_option_at_80_columns(words: tuple[str, ...]) -> None:
    output = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output
    assert "…" not in output
    options = re.split(r"\n│ (?=[*]? *--)", output)[1:]
    assert options
    for option in options:
        assert re.search(r"\[default: |\[required\]|Show this message", option), option


def typed(*words: str) -> dict[str, Any]:
    """Return the fields that the user typed, as `fit` gets them."""
    return typed_fields(command_of("fit").make_context("fit", list(words)), FLAGS)


def test_a_command_is_told_only_what_was_typed_in_the_form_of_the_file() -> None:
    assert typed() == {}
    assert typed("--runs", "x", "--seed", "0", "--decay", "0.5") == {"seed": 0, "network": {"decay": 0.5}}
    assert typed("--download", "--learn", "") == {"data": {"download": True}, "network": {"learn": []}}
    # What is no number, or none of its type, is left for the model to refuse.
    assert typed("--seed", "many", "--epochs", "1.5") == {"seed": "many", "optimisation": {"epochs": 1.5}}


def test_a_flag_says_its_choices_its_range_and_its_default(help_of_fit: str) -> None:
    said = entries(help_of_fit)
    assert said["download"] == "--download <bool> Download the data set where it is not there. [default: (do not)]"
    assert said["sensor"].startswith("--sensor <list> Events: channels, height and width; or units (1 to 2147483647).")
    assert said["low"] == "--low <float> The least raw value. [default: (the lowest in the data)]"
    assert "where learned, the start (0 to 1). [default: (0.75; for sequences one for each" in said["decay"]
    assert said["test-share"].endswith("(above 0, below 1). [default: 0.2]")
    assert said["folder"].startswith("--folder <path> Where ")
    assert said["reset"].startswith("--reset <name> What a spike does to the membrane: subtract, value or none.")
    assert "decay, syn_decay, threshold, gain" in said["learn"]
    assert said["learn"].endswith("[default: (none; for sequences all decays, and an AdLIF's adaptation)]")
    assert said["surrogate"].endswith("[default: (sigmoid; for sequences superspike)]")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stripes: Path) -> Path:
    """A folder with a run, runs/stripes-1, that was published to repository/stripes/1."""
    home = tmp_path_factory.mktemp("home")
    result = training_here(
        "fit", "--dataset", "arrays", "--file", stripes, "--architecture", "4C3-AP2-16", "--epochs", "3",
        "--time-steps", "4", "--batch-size", "16", "--repository", "repository", cwd=home,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Published stripes version 1" in result.stdout
    return home


def test_fit_leaves_all_that_a_person_would_look_for(finished: Path) -> None:
    run = finished / "runs" / "stripes-1"
    plots = ("curves", "confusion", "raster")
    for name in plots:
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
    metrics = json.loads((run / "metrics.json").read_text())
    assert len(metrics["epochs"]) == 3
    assert 0 <= metrics["test_accuracy"] <= 1
    assert set(metrics["firing_rates"]) == {"neuron1", "neuron3", "output"}
    assert all(epoch["gradient_norm"] > 0 for epoch in metrics["epochs"])
    assert len(metrics["warnings"]) == 2  # of few updates and of few validation samples
    assert list((run / "tensorboard").glob("events.*"))
    assert TrainingConfig.read(run / "config.toml", {}).network.architecture == "4C3-AP2-16"


def test_the_published_bundle_gives_the_counts_of_the_evaluation(finished: Path) -> None:
    bundle = ModelRepository(finished / "repository").read("stripes")
    saved = np.load(finished / "runs" / "stripes-1" / "evaluation.npz")
    for name in ENGINES:
        engine = create(name, bundle.network)
        bundle.verify(engine)
        result, _ = engine.run(encode(saved["x"], bundle.network.spec))
        np.testing.assert_array_equal(result.spike_counts, saved["spike_counts"])
    assert bundle.manifest.metrics["test_accuracy"] == (saved["class_index"] == saved["y"]).mean()
    assert "Firing rates" in bundle.card
    assert ACCURACY_VARIES in " ".join(bundle.card.split())
    assert bundle.manifest.firing_rates == RunFolder(finished / "runs" / "stripes-1").metrics["firing_rates"]


def test_export_publishes_the_next_version_and_evaluate_runs_any_engine(finished: Path) -> None:
    run = finished / "runs" / "stripes-1"
    exported = training_here("export", run, "--repository", finished / "other", "--name", "stripes")
    again = training_here("export", run, "--repository", finished / "other", "--name", "stripes")
    assert "Published stripes version 1" in exported.stdout
    assert "Published stripes version 2" in again.stdout
    results = {training_here("evaluate", run, "--engine", engine).stdout for engine in ("torch", "onnx")}
    assert len(results) == 1
    printed = " ".join(results.pop().split())  # a line is as wide as the terminal
    assert "Test accuracy" in printed
    assert ACCURACY_VARIES in printed


def in_process(*arguments: str | Path) -> Result:
    """Run a command in this process, which imports nothing again; a user's mistake is the result's exception."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_resume_can_make_a_run_longer_and_not_shorter(finished: Path, tmp_path: Path) -> None:
    run = RunFolder(Path(shutil.copytree(finished / "runs" / "stripes-1", tmp_path / "stripes-1")))
    before = run.metrics
    again = in_process("fit", "--resume", run.path)  # all its epochs are done, so it ends where it was
    assert again.exit_code == 0, again.output
    assert {name: run.metrics[name] for name in ("epochs", "test_accuracy")} == {
        name: before[name] for name in ("epochs", "test_accuracy")
    }
    assert in_process("fit", "--resume", run.path, "--epochs", "4", "--patience", "9").exit_code == 0
    assert run.metrics["epochs"][:3] == before["epochs"]
    assert len(run.metrics["epochs"]) == 4
    assert (run.config().optimisation.epochs, run.config().optimisation.patience) == (4, 9)
    shorter = in_process("fit", "--resume", run.path, "--epochs", "2")
    assert isinstance(shorter.exception, InvalidConfig)
    assert str(shorter.exception) == (
        "--epochs is 2, expected at least 4 as in the run, which --resume can make longer but not shorter"
    )


def test_resume_refuses_each_flag_that_it_would_ignore(finished: Path) -> None:
    run = finished / "runs" / "stripes-1"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    result = in_process("fit", "--resume", run, "--decay", "0.9", "--config", "x.toml", "--runs", "y", "--epochs", "9")
    assert isinstance(result.exception, InvalidConfig)
    assert str(result.exception) == (
        "--resume goes on under the run's own configuration and would ignore --config, --runs, --decay; of the "
        "configuration, only --device, --epochs, --patience and --precision may change"
    )
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_fault_of_the_code_has_no_sentence() -> None:
    assert sentence_of(KeyError("name")) is None
    assert sentence_of(RuntimeError("no memory of that")) is None


def test_a_file_that_cannot_be_written_is_named() -> None:
    error = NotADirectoryError(20, "Not a directory", "file/runs")
    assert sentence_of(error) == "'file/runs': cannot be read or written: Not a directory"
    assert sentence_of(OSError(28, "No space left on device")) == (
        "a file: cannot be read or written: No space left on device"
    )


def test_memory_that_runs_out_is_told_whichever_library_asked_for_it() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)  # an exabyte, which no machine has
    for each in (error.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        assert (sentence_of(each) or "").startswith("memory: there is not enough for this command")


def test_what_a_sentence_quotes_controls_no_terminal_and_fits_on_a_screen() -> None:
    assert sentence_of(InvalidConfig("file: '\x1b[31m\na' is none")) == "file: '\\x1b[31m\\na' is none"
    long = sentence_of(InvalidConfig(f"file: '{'a' * 10_000}' is none"))
    assert long is not None
    assert len(long) == MOST + len(" … ")
    assert long.startswith("file: 'aaa")
    assert long.endswith("aaa' is none")


def test_each_module_that_cannot_be_converted_keeps_its_line() -> None:
    told = sentence_of(NotConvertible.because(["0: why", "1: why"]))
    assert told is not None
    assert told.splitlines()[1:] == ["  0: why", "  1: why"]
