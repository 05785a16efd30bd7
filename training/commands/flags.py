"""Flags made from a configuration: one for each field of a pydantic model, in a panel of `--help` for each section.

The model is the only place where a field is written down. Its flag takes name, type, range, choices, default and
description from there, through the model's JSON schema. What a schema cannot say stands in `json_schema_extra`:

    chosen      in words what is taken where the user says nothing; a field whose default is None has to have it
    sequences   the default for sequences, beside that for images
    resumable   True for a field that may change when a run is resumed
    first       True for a field that is needed first: its flag stands before all panels
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.markup import escape

from spikeserve.training.config import SEQUENCES

TOP_LEVEL = "whole run"  # the panel of the fields that are in no section
TYPES = {"integer": "<int>", "number": "<float>", "string": "<str>", "array": "<list>", "boolean": "<bool>"}

Command = Callable[..., None]


@dataclass(frozen=True)
class Flag:
    """The flag of one field.

    `path` is the field's place in the file, such as ("network", "decay"); `schema` its JSON schema, and `types` the
    schemas of the types that it may have, None left out.
    """

    path: tuple[str, ...]
    schema: Mapping[str, Any]
    types: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """The field's name, which is also the parameter's."""
        return self.path[-1]

    @property
    def text(self) -> str:
        """The flag as it is typed, such as --batch-size."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def section(self) -> str:
        """The section that the field is in, which is the title of its panel."""
        return ".".join(self.path[:-1]) or TOP_LEVEL

    @property
    def switch(self) -> bool:
        """Whether it is --x or --no-x, without a value."""
        return all(kind.get("type") == "boolean" for kind in self.types)

    @property
    def listed(self) -> bool:
        """Whether its value is a list, written a,b,c."""
        return all(kind.get("type") == "array" for kind in self.types)

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
    def first(self) -> bool:
        """Whether it is needed first, so that it stands before all panels."""
        return bool(self.schema.get("first"))

    @property
    def help(self) -> str:
        """The description, and what values there are."""
        # A field that says the same as the docstring of its enum has no description of its own in the schema.
        described = [each["description"] for each in (self.schema, *self.types) if "description" in each][:1]
        if not described:
            raise ValueError(f"{'.'.join(self.path)} has no description, expected one for its flag")
        description = described[0].rstrip(".")
        if any(_choices(kind) for kind in self.types):
            return f"{description}: {_alternatives([name for kind in self.types for name in _named(kind)])}."
        values = [words for kind in self.types if (words := _range(kind))]
        return f"{description} ({' or '.join(values)})." if values else f"{description}."

    def parameter(self) -> inspect.Parameter:
        """Return the parameter of a command from which Typer makes the flag."""
        shown = self.shown_default
        if self.default is None and shown is None:
            raise ValueError(
                f"{'.'.join(self.path)} has the default None, expected json_schema_extra with 'chosen', which says "
                "what is taken instead"
            )
        option = typer.Option(
            f"{self.text}/--no-{self.text[2:]}" if self.switch else self.text,
            help=escape(self.help),
            metavar=None if self.switch else _metavar(self.types),
            rich_help_panel=None if self.first else self.section,
            show_default=True if shown is None else shown,
        )
        kind: Any = bool if self.switch else str  # what the text means is for the model to say
        if self.default is None:
            kind = kind | None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=self.default, annotation=Annotated[kind, option]
        )

    def value(self, typed: str | bool) -> Any:
        """Return the typed value as a file would hold it; the model refuses one of another type."""
        if isinstance(typed, bool):
            return typed
        if self.listed:
            return typed.split(",") if typed else []
        if all(kind.get("type") in ("integer", "number") for kind in self.types):
            with suppress(ValueError):
                return json.loads(typed)
        return typed


def flags_of(model: type[BaseModel]) -> list[Flag]:
    """Return the flag of each field of `model` and of its sections, in order; a section is a field that is a model.

    Raises ValueError for two fields with one name, since they would be one flag.
    """
    schema = model.model_json_schema()
    found: dict[str, Flag] = {}
    for flag in _walk(schema, (), schema.get("$defs", {})):
        other = found.setdefault(flag.name, flag)
        if other is not flag:
            raise ValueError(
                f"{'.'.join(other.path)} and {'.'.join(flag.path)} would both be the flag {flag.text}; rename one"
            )
    return list(found.values())


def with_flags(model: type[BaseModel]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command, in place of its `**flags`, the flag of each field of `model`.

    The command finds out by `given` which of them the user typed. Raises ValueError for a field that is named like
    one of the command's own parameters.
    """
    flags = flags_of(model)

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for each in signature.parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        for flag in flags:
            if flag.name in {each.name for each in own} | {"help"}:
                raise ValueError(
                    f"{'.'.join(flag.path)} and {command.__name__} would both have the flag {flag.text}; rename one"
                )
        first, others = ([flag.parameter() for flag in flags if flag.first is which] for which in (True, False))
        parameters = [*first, *own, *others]
        # Typer asks for the signature and for the type hints.
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
        return command

    return decorate


def given(model: type[BaseModel], context: typer.Context) -> dict[str, Any]:
    """Return the fields that the user typed, as nested dictionaries: {"seed": "1", "network": {"decay": "0.9"}}."""
    values: dict[str, Any] = {}
    for flag in flags_of(model):
        if typed(context, flag.name):
            section = values
            for part in flag.path[:-1]:
                section = section.setdefault(part, {})
            section[flag.name] = flag.value(context.params[flag.name])
    return values


def typed(context: typer.Context, name: str) -> bool:
    """Return whether the user typed the parameter `name`, as opposed to its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _walk(schema: Mapping[str, Any], path: tuple[str, ...], models: Mapping[str, Any]) -> Iterator[Flag]:
    for name, field in schema["properties"].items():
        types = tuple(_types(field, models))
        if any("properties" in kind for kind in types):
            yield from _walk(types[0], (*path, name), models)
        else:
            yield Flag((*path, name), field, types)


def _types(field: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the schema of each type that a field may have, references resolved, None left out."""
    if "$ref" in field:
        yield from _types(models[field["$ref"].rpartition("/")[2]], models)
    elif "anyOf" in field:
        for kind in field["anyOf"]:
            yield from _types(kind, models)
    elif "items" in field:
        items, *others = _types(field["items"], models)
        yield {**field, "items": items if not others else {}}
    elif field.get("type") != "null":
        yield field


def _metavar(types: tuple[Mapping[str, Any], ...]) -> str:
    words = []
    for kind in types:
        if _choices(kind):
            words.append(TYPES["array"] if "items" in kind else "<name>")
        elif kind.get("format") in ("path", "file-path", "directory-path"):
            words.append("<path>")
        else:
            words.append(TYPES.get(kind.get("type", ""), "<value>"))
    return "|".join(dict.fromkeys(words))


def _written(value: Any) -> str:
    """Return a value as a user would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _choices(kind: Mapping[str, Any]) -> list[str]:
    """Return the values of a type that has only certain ones; of a list, those of what it holds."""
    kind = kind.get("items", kind)
    return [str(value) for value in ([kind["const"]] if "const" in kind else kind.get("enum", []))]


def _named(kind: Mapping[str, Any]) -> list[str]:
    """Return the values of a type in words, beside those of other types."""
    return _choices(kind) or [f"{TYPES.get(kind.get('type', ''), '<value>')} {_range(kind)}".rstrip()]


def _alternatives(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _range(kind: Mapping[str, Any]) -> str:
    """Return the bounds of a number in words; empty where there are none. Of a list, those of what it holds."""
    kind = kind.get("items", kind)
    low, high = kind.get("minimum"), kind.get("maximum")
    if low is not None and high is not None:
        return f"{low:.10g} to {high:.10g}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return ", ".join(f"{word} {kind[key]:.10g}" for key, word in words.items() if key in kind)
