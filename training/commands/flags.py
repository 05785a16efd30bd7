"""Flags made from the configuration: one for each field but those of its file alone, in a panel for each section.

The model is the only place where a field is written down. Its flag takes name, type, range, choices, default and
description from there, through the model's JSON schema. What a schema cannot say stands in `json_schema_extra`:

    chosen      in words what is taken where the user says nothing; a field whose default is None has to have it
    sequences   the default for sequences, beside that for images
    resumable   True for a field that may change when a run is resumed
    first       True for a field that is needed first: its flag stands before all panels
    file        True for a field that its file alone says
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from spikeserve.training.config import SEQUENCES, TrainingConfig

TOP_LEVEL = "whole run"  # the panel of the fields that are in no section
TYPES = {"integer": "<int>", "number": "<float>", "string": "<str>", "array": "<list>"}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}

Command = Callable[..., None]


@dataclass(frozen=True)
class Flag:
    """The flag of one field: its section in the file, its JSON schema, and that of its values, None left out."""

    section: str  # empty for a field of the whole run
    name: str  # which is also the parameter's
    schema: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The flag as it is typed, such as --batch-size."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def default(self) -> str | bool | None:
        """The default as a user would type it; None where something else chooses."""
        value = self.schema.get("default")
        return value if value is None or isinstance(value, bool) else _written(value)

    @property
    def shown_default(self) -> str | None:
        """What `--help` says of the default instead of its value; None where the value says all."""
        if "chosen" in self.schema:
            return str(self.schema["chosen"])
        usual, sequences = (_written(self.schema.get(key)) or "none" for key in ("default", SEQUENCES))
        if SEQUENCES in self.schema and sequences != usual:
            return f"{usual}; for sequences {sequences}"
        return "none" if self.default == "" else None

    def is_default(self, value: Any) -> bool:
        """Return whether a value, as in JSON, is the default of the field, for images or for sequences."""
        return _written(value) in {_written(self.schema.get(key)) for key in ("default", SEQUENCES)}

    @property
    def resumable(self) -> bool:
        """Whether it may change when a run is resumed."""
        return bool(self.schema.get("resumable"))

    @property
    def help(self) -> str:
        """The description, and what values there are."""
        # A field that says the same as the docstring of its enum has no description of its own in the schema.
        description = str(self.schema.get("description") or self.values["description"]).rstrip(".")
        single = self.values.get("items", self.values)
        if "enum" in single:
            *others, last = map(str, single["enum"])
            return f"{description}: {', '.join(others)} or {last}."
        bounds = {words: f"{single[key]:.10g}" for key, words in BOUNDS.items() if key in single}
        if {"at least", "at most"} <= bounds.keys():
            return f"{description} ({bounds['at least']} to {bounds['at most']})."
        return f"{description} ({', '.join(map(' '.join, bounds.items()))})." if bounds else f"{description}."

    @property
    def metavar(self) -> str | None:
        """What stands for the value in `--help`; None for a switch, which takes none."""
        if self.values.get("type") == "string" and "enum" in self.values:
            return "<name>"
        return "<path>" if self.values.get("format") == "path" else TYPES.get(self.values["type"])

    def parameter(self) -> inspect.Parameter:
        """Return the parameter of a command from which Typer makes the flag."""
        switch = self.values["type"] == "boolean"
        option = typer.Option(
            self.text,
            help=escape(self.help),
            metavar=self.metavar,
            rich_help_panel=None if self.schema.get("first") else self.section or TOP_LEVEL,
            show_default=self.shown_default or True,
        )
        kind: Any = bool if switch else str | None  # what the text means is for the model to say
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=Annotated[kind, option]
        )

    def value(self, typed: str | bool) -> Any:
        """Return the typed value as a file would hold it; the model refuses one of another type."""
        if isinstance(typed, bool):
            return typed
        if self.values["type"] == "array":
            return typed.split(",") if typed else []
        if self.values["type"] in ("integer", "number"):
            with suppress(ValueError):
                return json.loads(typed)
        return typed


def with_flags(command: Command) -> Command:
    """Give a command the flags of the configuration's fields, in place of its `**flags`.

    It finds out by `typed_fields` which of them the user typed.
    """
    first = [flag.parameter() for flag in FLAGS if flag.schema.get("first")]
    others = [flag.parameter() for flag in FLAGS if not flag.schema.keys() & {"first", "file"}]
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*first, *(each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD), *others]
    return with_parameters(command, parameters)


def with_parameters(command: Command, parameters: Sequence[inspect.Parameter]) -> Command:
    """Let Typer, which asks for the signature and for the type hints, see these parameters of a command."""
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return command


def typed_fields(context: typer.Context) -> dict[str, Any]:
    """Return the fields that the user typed, as nested dictionaries: {"seed": 1, "network": {"decay": 0.9}}."""
    values: dict[str, Any] = {}
    for flag in FLAGS:
        if typed(context, flag.name):
            section = values.setdefault(flag.section, {}) if flag.section else values
            section[flag.name] = flag.value(context.params[flag.name])
    return values


def typed(context: typer.Context, name: str) -> bool:
    """Return whether the user typed the parameter `name`, as opposed to its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _flags() -> Iterator[Flag]:
    schema = TrainingConfig.model_json_schema()
    models = schema["$defs"]
    for name, field in schema["properties"].items():
        values = _values(field, models)
        if "properties" not in values:
            yield Flag("", name, field, values)
        for inner, its in values.get("properties", {}).items():
            yield Flag(name, inner, its, _values(its, models))


def _values(field: Mapping[str, Any], models: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a field's values: that which it refers to, and of two that which is not None's."""
    if "anyOf" in field:
        field = next(each for each in field["anyOf"] if each.get("type") != "null")
    return models[field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def _written(value: Any) -> str:
    """Return a value as a user would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


FLAGS = tuple(_flags())
