"""Pydantic's validation errors as sentences that name the field, the value and what was expected."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from service.errors import cut, shown

MAX_LISTED = 100  # more errors than this are only counted, since listing them makes an object of each


@dataclass(frozen=True)
class FirstError:
    """The first error of a validation: pydantic's name of its type, and a sentence."""

    kind: str
    sentence: str


def first_error(error: ValidationError, *, fields: str, hidden: frozenset[str] = frozenset()) -> FirstError:
    """Return the first error as a sentence.

    `fields` lists the known fields, for an error about an unknown one. `hidden` are the parts of pydantic's location
    that do not come from the client's JSON (the tags of a union).
    """
    if error.error_count() > MAX_LISTED:
        return FirstError(
            "many", f"the body has {error.error_count()} errors, expected an object with the fields {fields}"
        )
    first = error.errors(include_url=False)[0]
    where = _place([part for part in first["loc"] if part not in hidden])
    expected = _expected(first["msg"])
    template = _TEMPLATES.get(first["type"], "{where} is {given}, expected {expected}")
    most = first.get("ctx", {}).get("max_length")
    sentence = template.format(where=where, given=shown(first["input"]), expected=expected, fields=fields, most=most)
    return FirstError(first["type"], sentence)


def _place(location: list[int | str]) -> str:
    """Write a location as in code, `inputs[2].t[0]`; an empty one is the body as a whole."""
    if not location:
        return "the body"
    return cut("".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix("."))


def _expected(message: str) -> str:
    for prefix in ("Value error, ", "Invalid JSON: ", "Input should be "):
        message = message.removeprefix(prefix)
    for pydantic, plain in _PLAIN.items():
        message = message.replace(pydantic, plain)
    return message


_PLAIN = {
    ", unable to parse string as an integer": "",
    "a valid array": "an array",
    "a valid boolean": "true or false",
    "a valid integer": "an integer",
    "a valid list": "an array",
    "a valid number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}
_TEMPLATES = {
    "json_invalid": "the body is not JSON: {expected}",
    "missing": "{where} is missing",
    "model_type": "{where} is {given}, expected an object",
    "extra_forbidden": "{where} is not a field here, expected one of {fields}",
    "too_short": "{where} is empty, expected at least one item",
    "too_long": "{where} has too many items, expected at most {most}",
}
