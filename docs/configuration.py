"""Write docs/configuration.md from the service's settings: `python -m docs.configuration`; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from spikeserve.service.settings import ENVIRONMENT_PREFIX, with_protocols

PAGE = Path(__file__).parent / "configuration.md"

HEAD = f"""\
# Configuration

<!-- Written by `python -m docs.configuration` from service/settings.py: change the settings there and run it again. -->

Each setting is a flag of `spikeserve serve`, such as `--max-batch 32`, or an environment variable, such as
`{ENVIRONMENT_PREFIX}MAX_BATCH=32`. A flag wins. An empty variable counts as not set, except for keys, where it
stops the start. A mistake is one sentence and exit status 2. Numbers are whole, unless "a decimal" is said.

| flag | default | values | meaning |
|---|---|---|---|
"""

BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def page() -> str:
    """Return the page: one row for each setting, in their order, the ports of protocols last."""
    return HEAD + "".join(row(name, field) for name, field in with_protocols().model_fields.items())


def row(name: str, field: FieldInfo) -> str:
    """Return the table's row of one setting; raises ValueError where it has no description."""
    if not field.description:
        raise ValueError(f"spikeserve.service.settings.Settings.{name}: has no description, which its row needs")
    text = field.description.replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
    return f"| `--{name.replace('_', '-')}` | {default(field)} | {values(field)} | {text} |\n"


def default(field: FieldInfo) -> str:
    """Return the default of a setting."""
    match field.default:
        case None:
            return "not set"
        case Path():  # the same folder is called otherwise on every machine
            return "the shipped models"
        case bool(value):
            return f"`{str(value).lower()}`"
        case float(value):
            return f"`{value:g}`"
        case value if value is PydanticUndefined:  # the number of threads depends on the machine
            return "one for each core that the process may use"
        case value:
            return f"`{value}`"


def values(field: FieldInfo) -> str:
    """Describe the values of a setting: its choices, or the bounds of a number."""
    kind = field.annotation
    if kind is bool:
        return "`true` or `false`"
    if choices := [choice for choice in get_args(kind) if isinstance(choice, str)]:
        return ", ".join(f"`{choice}`" for choice in choices)
    if kind not in (int, float):
        return "a path" if kind is Path or Path in get_args(kind) else "text"
    return bounds(field) if kind is int else f"a decimal, {bounds(field)}"


def bounds(field: FieldInfo) -> str:
    """Describe the bounds of a number, such as "at least 1", or "0 to 65535"."""
    found = {
        name: value for each in field.metadata for name in BOUNDS if (value := getattr(each, name, None)) is not None
    }
    if found.keys() == {"ge", "le"}:
        return f"{found['ge']:g} to {found['le']:g}"
    return ", ".join(f"{BOUNDS[name]} {found[name]:g}" for name in BOUNDS if name in found)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text() != page():
            raise SystemExit("docs/configuration.md is not what the settings say: run python -m docs.configuration")
    else:
        PAGE.write_text(page())
