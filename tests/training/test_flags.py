"""The flags of `fit`: one for each field of the configuration, made from the model alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from spikeserve.models.spec.nodes import Fire
from spikeserve.training.__main__ import app
from spikeserve.training.commands.flags import FLAGS, typed_fields
from spikeserve.training.config import TrainingConfig


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


def commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that is not a group."""
    if hasattr(command, "commands"):
        for name, each in command.commands.items():
            yield from commands(each, *path, name)
    else:
        yield path


@pytest.mark.parametrize("words", list(commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_shows_the_default_of_every_option_at_80_columns(words: tuple[str, ...]) -> None:
    output = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output
    assert "…" not in output
    options = re.split(r"\n│ (?=[*]? *--)", output)[1:]
    assert options
    for option in options:
        assert re.search(r"\[default: |\[required\]|Show this message", option), option


def typed(*words: str) -> dict[str, Any]:
    """Return the fields that the user typed, as `fit` gets them."""
    command: Any = typer.main.get_command(app)
    return typed_fields(command.commands["fit"].make_context("fit", list(words)))


def test_a_command_is_told_only_what_was_typed_in_the_form_of_the_file() -> None:
    assert typed() == {}
    assert typed("--runs", "x", "--seed", "0", "--decay", "0.5") == {"seed": 0, "network": {"decay": 0.5}}
    assert typed("--download", "--learn", "") == {"data": {"download": True}, "network": {"learn": []}}
    # What is no number, or none of its type, is left for the model to refuse.
    assert typed("--seed", "many", "--epochs", "1.5") == {"seed": "many", "optimisation": {"epochs": 1.5}}


def test_what_was_typed_is_read_by_the_model_whatever_the_type_of_the_field() -> None:
    words = ["--download", "--sensor", "2,34", "--learn", "decay,gain", "--fire", "above_threshold", "--low", "-0.5"]
    config = TrainingConfig.model_validate(typed(*words, "--max-steps", "12", "--folder", "here"))
    assert (config.data.download, config.data.sensor, config.data.low) == (True, (2, 34), -0.5)
    assert (config.data.max_steps, config.data.folder) == (12, Path("here"))
    assert (config.network.learn, config.network.fire) == (("decay", "gain"), Fire.ABOVE_THRESHOLD)


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
