"""Flags made from a model, such as the configuration of `fit` or an importer's options: one for each field.

The model is the only place where a field is written down. Its flag takes name, type, range, choices, default and
description from there, through the model's JSON schema. What a schema cannot say stands in `json_schema_extra`:

    chosen      in words what is taken where the user says nothing; a field whose default is None has to have it
    sequences   the default for sequences, beside that for images
    resumable   True for a field that may change when a run is resumed
    first       True for a field that is needed first: its flag stands before all panels
    file        True for a field that no flag says
    panel       the panel of `--help` that it stands in, where it is not the section's
    metavar     what stands for the value in `--help`, where its type does not say it
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer
from pydantic import BaseModel
from rich.markup import escape

TOP_LEVEL = "whole run"  # the panel of the fields that are in no section
TYPES = {"integer": "<int>", "number": "<float>", "string": "<str>", "array": "<list>"}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}

Command = Callable[..., None]


@dataclass(frozen=True)
class Flag:
    """The flag of one field: its section in the file, its JSON schema, and that of its values, None left out.

    `kind` is the type that the command line reads it as and refuses all else; None leaves that to the model.
    """

    section: str  # empty for a field of the whole run
    name: str  # which is also the parameter's
    schema: Mapping[str, Any]
    values: Mapping[str, Any]
    kind: Any = None

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
        usual, sequences = (_written(self.schema.get(key)) or "none" for key in ("default", "sequences"))
        if "sequences" in self.schema and sequences != usual:
            return f"{usual}; for sequences {sequences}"
        return "none" if self.default == "" else None

    def is_default(self, value: Any) -> bool:
        """Return whether a value, as in JSON, is the default of the field, for images or for sequences."""
        return _written(value) in {_written(self.schema.get(key)) for key in ("default", "sequences")}

    @property
    def help(self) -> str:
        """The description, and what values there are."""
        # A field that says the same as the docstring of its enum has no description of its own in the schema.
        description = str(self.schema.get("description") or self.values["description"]).rstrip(".")
        if self.kind:
            return f"{description}."
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
        """What stands for the value in `--help`; None for a switch, which takes none, and where Typer says it."""
        if self.kind:
            return self.schema.get("metavar")
        if self.values.get("type") == "string" and "enum" in self.values:
            return "<name>"
        return "<path>" if self.values.get("format") == "path" else TYPES.get(self.values["type"])

    def parameter(self) -> inspect.Parameter:
        """Return the parameter of a command from which Typer makes the flag."""
        switch = self.values.get("type") == "boolean"
        panel = self.schema.get("panel", None if self.kind or self.schema.get("first") else self.section or TOP_LEVEL)
        option = typer.Option(
            self.text,
            help=escape(self.help),
            metavar=self.metavar,
            rich_help_panel=panel,
            show_default=self.shown_default or True,
            min=self.values.get("minimum") if self.kind is int else None,
        )
        kind: Any = bool if switch else (self.kind or str) | None  # text is for the model to say what it means
        needed = self.kind and "default" not in self.schema
        default = inspect.Parameter.empty if needed else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
        )

    def value(self, typed: Any) -> Any:
        """Return the typed value as a file would hold it; the model refuses one of another type."""
        if not isinstance(typed, str) or isinstance(typed, Enum) or "metavar" in self.schema:
            return typed
        if self.values["type"] == "array":
            return typed.split(",") if typed else []
        if self.values["type"] in ("integer", "number"):
            with suppress(ValueError):
                return json.loads(typed)
        return typed


def with_flags(command: Command, flags: Sequence[Flag]) -> Command:
    """Give a command the flags of a model's fields, in place of its `**flags`.

    It finds out by `typed_fields` which of them the user typed.
    """
    first = [flag.parameter() for flag in flags if flag.schema.get("first")]
    others = [flag.parameter() for flag in flags if not flag.schema.keys() & {"first", "file"}]
    own = inspect.signature(command, eval_str=True).parameters.values()
    parameters = [*first, *(each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD), *others]
    return with_parameters(command, parameters)


def with_parameters(command: Command, parameters: Sequence[inspect.Parameter]) -> Command:
    """Let Typer, which asks for the signature and for the type hints, see these parameters of a command."""
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return command


def typed_fields(context: typer.Context, flags: Sequence[Flag]) -> dict[str, Any]:
    """Return the fields that the user typed, as nested dictionaries: {"seed": 1, "network": {"decay": 0.9}}."""
    values: dict[str, Any] = {}
    for flag in flags:
        if typed(context, flag.name):
            section = values.setdefault(flag.section, {}) if flag.section else values
            section[flag.name] = flag.value(context.params[flag.name])
    return values


def typed(context: typer.Context, name: str) -> bool:
    """Return whether the user typed the parameter `name`, as opposed to its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def flags_of(model: type[BaseModel], *, checked: bool = False) -> Iterator[Flag]:
    """Yield the flags of a model's fields, and of its sections'; `checked` ones have a `kind`."""
    schema = model.model_json_schema()
    models = schema.get("$defs", {})
    for name, field in schema["properties"].items():
        values = _values(field, models)
        section = {} if "metavar" in field else values.get("properties", {})
        if not section:
            kind = _kind(model.model_fields[name].annotation) if checked else None
            yield Flag("", name, field, values, kind)
        for inner, its in section.items():
            yield Flag(name, inner, its, _values(its, models))


def _kind(annotation: Any) -> Any:
    """Return the type that Typer reads a field's text as: its own where that is a word, a number or a path."""
    kinds = [
        getattr(kind, "__origin__", kind) for kind in get_args(annotation) or (annotation,) if kind is not NoneType
    ]
    plain = len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], Enum | int | float | Path)
    return kinds[0] if plain else str


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
