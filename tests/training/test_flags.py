"""The flags of `fit`: one for each field of the configuration, made from the model alone.

The commands, as a user types them: fit, evaluate, export, and what they say when something is wrong.

What the command line makes of an error: a sentence for a user's mistake, and nothing for a fault of the code.
"""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.coding import encode
from spikeserve.models.engines import ENGINES, create
from spikeserve.training.commands.runs import FLAGS
from spikeserve.training.commands.sentences import MOST, sentence_of
from spikeserve.training.config import TrainingConfig
from spikeserve.training.errors import InvalidConfig, NotConvertible
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.report.evaluate import ACCURACY_VARIES
from tests.apps import app, commands
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
    assert not {flag.text[2:] for flag in FLAGS if flag not in TYPED} & set(shown)
    for flag in TYPED:
        default = flag.default if flag.shown_default is None else f"({flag.shown_default})"
        # A long default may break at its hyphens, and is joined with blanks above.
        assert f"[default:{default}]".replace(" ", "") in shown[flag.text[2:]].replace(" ", ""), flag.text
    # There is a panel for each section, after what is needed first.
    sections = [name for name, field in TrainingConfig.model_fields.items() if isinstance(field.default, BaseModel)]
    assert re.findall(r"^╭─ (.+?) ─+╮$", help_of_fit, re.MULTILINE) == ["Options", "whole run", *sections]
    first = re.findall(r"^│ --([a-z]+)", help_of_fit.partition("╰")[0], re.MULTILINE)
    assert first == ["file", "architecture", "coding", "epochs", "repository", "help"]


MORE = [("verify", "--against", "torch:")]  # with the flags of an importer


@pytest.mark.parametrize("words", [*(words for words, _ in commands()), *MORE], ids=" ".join)
def test_every_command_shows_the_default_of_every_option_at_80_columns(words: tuple[str, ...]) -> None:
    output = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output
    assert "…" not in output
    assert "{name}" not in output  # a bundle is one in every command
    options = re.split(r"\n│ (?=[*]? *--)", output)[1:]
    assert options
    for option in options:
        assert re.search(r"\[default: |\[required\]|Show this message", option), option


def test_a_flag_says_its_choices_its_range_and_its_default(help_of_fit: str) -> None:
    said = entries(help_of_fit)
    assert said["download"] == "--download <bool> Download the data set where it is not there. [default: (do not)]"
    assert said["sensor"].startswith("--sensor <list> Events: channels, height and width; or units (1 to 2147483647).")
    assert f"[default: ({TrainingConfig().optimisation.epochs}, or as many as 500" in said["epochs"]
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


def test_an_interrupt_says_whose_weights_stay(stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_an_epoch = "spikeserve.training.report.display.write_scalars"
    monkeypatch.setattr(after_an_epoch, lambda *_: signal.default_int_handler(signal.SIGINT, None))
    result = training_here("fit", "--file", stripes, "--architecture", "4", cwd=tmp_path, plots=False)
    kept = re.findall(r"the (?:weights|best).* (?:kept|taken)", result.stdout)
    assert (result.returncode, {*kept}) == (130, {"the weights of its last epoch are kept"})


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


NO_MEMORY = (
    "memory: there is not enough for this command, expected more of it, or smaller layers, batches, time steps or data"
)


def out_of_memory() -> Exception:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)  # an exabyte, which no machine has
    return error.value


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        # A fault of the code has none.
        (KeyError("name"), None),
        (RuntimeError("no memory of that"), None),
        (NotADirectoryError(20, "Not a directory", "a/runs"), "'a/runs': cannot be read or written: Not a directory"),
        (OSError(28, "No space left on device"), "a file: cannot be read or written: No space left on device"),
        (out_of_memory(), NO_MEMORY),
        (MemoryError(), NO_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), NO_MEMORY),
        # What a sentence quotes controls no terminal and fits on a screen.
        (InvalidConfig("file: '\x1b[31m\na' is none"), "file: '\\x1b[31m\\na' is none"),
        (InvalidConfig("a" * MOST + "b" * 8000), "a" * (MOST - 500) + " … " + "b" * 500),
        (NotConvertible("2 modules:\n  0: why\n  1: why"), "2 modules:\n  0: why\n  1: why"),
    ],
)
def test_a_user_is_told_one_sentence_of_an_error(error: Exception, sentence: str | None) -> None:
    assert sentence_of(error) == sentence
