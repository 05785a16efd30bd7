"""The flags of `fit`: one for each field of the configuration, made from the model alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from spikeserve.training.__main__ import app
from spikeserve.training.commands.flags import flags_of, given, with_flags
from spikeserve.training.config import TrainingConfig

FIELDS = [flag.text[2:] for flag in flags_of(TrainingConfig)]


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


def test_help_at_80_columns_shows_every_field_once_with_its_default_and_cuts_nothing() -> None:
    result = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    assert "…" not in result.output
    shown = entries(result.output)
    assert set(FIELDS) < set(shown)
    for flag in flags_of(TrainingConfig):
        default = flag.default
        if flag.shown_default is not None:
            default = f"({flag.shown_default})"
        elif isinstance(default, bool):
            default = flag.text[2:] if default else f"no-{flag.text[2:]}"
        # A long default may break at its hyphens, and is joined with blanks above.
        assert f"[default:{default}]".replace(" ", "") in shown[flag.text[2:]].replace(" ", ""), flag.text


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


def test_help_has_a_panel_for_each_section() -> None:
    output = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "80"}).output
    titles = re.findall(r"^╭─ (.+?) ─+╮$", output, re.MULTILINE)
    sections = [name for name, field in TrainingConfig.model_fields.items() if isinstance(field.default, BaseModel)]
    assert titles == ["Options", "whole run", *sections]


def test_help_begins_with_what_is_needed_first() -> None:
    output = CliRunner().invoke(app, ["fit", "--help"], env={"COLUMNS": "80"}).output
    (first, *_) = re.split(r"^╰", output, flags=re.MULTILINE)
    assert re.findall(r"^│ --([a-z]+)", first, re.MULTILINE) == [
        "file",
        "architecture",
        "coding",
        "epochs",
        "repository",
        "help",
    ]


class Kind(StrEnum):
    """The kinds."""

    A = "a"
    B = "b"


class Inner(BaseModel):
    """A section in a section."""

    depth: Annotated[int, Field(ge=0)] = Field(default=1, description="How deep.")


class Section(BaseModel):
    """A section."""

    learned: bool = Field(default=True, description="Whether it is learned.")
    weights: tuple[float, ...] = Field(default=(0.5, 2.0), description="The weights.")
    names: list[str] = Field(default=[], description="The names.")
    kind: Kind = Field(default=Kind.A, description="The kind.")
    width: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(default="auto", description="The width.")
    share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="The share [0.5 or x].", json_schema_extra={"chosen": "a half [of all]"}
    )
    rate: float = Field(default=0.5, description="The rate.", json_schema_extra={"sequences": 0.25})
    learn: tuple[Kind, ...] = Field(
        default=(), description="What is learned.", json_schema_extra={"sequences": ["a", Kind.B]}
    )
    inner: Inner = Inner()


class Model(BaseModel):
    """A configuration."""

    seed: int = Field(default=0, description="The seed.")
    section: Section = Section()


def run(*arguments: str, model: type[BaseModel] = Model) -> Any:
    """Return the fields that the user typed, as a command with the model's flags gets them."""
    app = typer.Typer()
    seen: list[Any] = []

    def command(context: typer.Context, own: int = 3, **_flags: Any) -> None:
        seen.append((own, given(model, context)))

    app.command()(with_flags(model)(command))
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    return seen[0] if seen else result.output


def test_a_command_is_told_only_what_was_typed_in_the_form_of_the_file() -> None:
    assert run() == (3, {})
    assert run("--own", "4", "--seed", "0", "--depth", "7") == (
        4,
        {"seed": 0, "section": {"inner": {"depth": 7}}},
    )


def test_what_was_typed_is_read_by_the_model_whatever_the_type_of_the_field() -> None:
    typed = ["--no-learned", "--weights", "1,2,3", "--names", "x,y", "--kind", "b", "--width", "12", "--share", "0.25"]
    _, values = run(*typed)
    section = Model.model_validate(values).section
    assert section == Section(
        learned=False, weights=(1.0, 2.0, 3.0), names=["x", "y"], kind=Kind.B, width=12, share=0.25
    )
    assert run("--names", "")[1] == {"section": {"names": []}}


def test_what_is_no_number_is_left_for_the_model_to_refuse() -> None:
    assert run("--seed", "many", "--depth", "1.5")[1] == {"seed": "many", "section": {"inner": {"depth": 1.5}}}


def test_a_flag_says_its_choices_its_range_and_its_default() -> None:
    said = entries(run("--help"))
    assert said["learned"] == "--learned --no-learned <bool> Whether it is learned. [default: learned]"
    assert said["weights"] == "--weights <list> The weights. [default: 0.5,2.0]"
    assert said["names"] == "--names <list> The names. [default: (none)]"
    assert said["rate"] == "--rate <float> The rate. [default: (0.5; for sequences 0.25)]"
    assert said["learn"] == ("--learn <list> What is learned: a or b. [default: (none; for sequences a,b)]")
    assert said["kind"] == "--kind <name> The kind: a or b. [default: a]"
    assert said["width"] == "--width <name>|<int> The width: auto or <int> at least 1. [default: auto]"
    assert said["share"] == "--share <float> The share [0.5 or x] (above 0, below 1). [default: (a half [of all])]"
    assert said["depth"] == "--depth <int> How deep (at least 0). [default: 1]"


class Other(BaseModel):
    """Another section, with a field that Section has too."""

    kind: str = Field(default="", description="The kind.")


def test_two_fields_of_one_name_are_refused() -> None:
    class Twice(Model):
        other: Other = Other()

    with pytest.raises(ValueError, match=r"^section\.kind and other\.kind would both be the flag --kind; rename one$"):
        flags_of(Twice)


def test_a_field_that_is_named_like_a_parameter_of_the_command_is_refused() -> None:
    class Clashing(Model):
        own: int = Field(default=0, description="The command has one too.")

    with pytest.raises(ValueError, match=r"^own and command would both have the flag --own; rename one$"):
        run(model=Clashing)


def test_a_field_without_a_description_or_a_word_for_its_default_is_refused() -> None:
    class Silent(BaseModel):
        size: int = 3

    class Vague(BaseModel):
        size: int | None = Field(default=None, description="The size.")

    with pytest.raises(ValueError, match=r"^size has no description"):
        run(model=Silent)
    with pytest.raises(ValueError, match=r"^size has the default None, expected json_schema_extra with 'chosen'"):
        run(model=Vague)
