"""Validation of strict JSON and of a query's parameters, and its errors as sentences, with a hint if one helps.

A query has at most MAX_PARAMETERS parameters, and each name once. The middleware refuses a longer one on every route,
before anything parses it: a header's 64 KiB hold 65,536 of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from spikeserve.models.errors import InvalidInput
from spikeserve.models.spec.parameters import Shape
from spikeserve.service.errors import MalformedBody, TooLarge, cut, shown

MAX_LISTED = 100  # more errors than this are only counted, since listing them makes an object of each
LONGEST_NAME = 64  # characters of an unknown field that is compared with the known ones
IMAGE_AXES = 3  # channels, height, width


_MAX = float(np.finfo(np.float32).max)
_Number = Annotated[float, Field(ge=-_MAX, le=_MAX)]

Sample = TypeVar("Sample")


class Strict(BaseModel):
    """Strict JSON: no text or boolean in place of a number, no NaN, no unknown field."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def nested(depth: int) -> Any:
    """Return the type of numbers in lists nested so deep."""
    sample: Any = _Number
    for _ in range(depth):
        sample = Annotated[list[sample], FailFast()]
    return sample


_NUMBERS = re.compile(rb"\[[-+0-9.eE,\s]*\]")  # an array of nothing but numbers
Model = TypeVar("Model", bound=BaseModel)


def read_json(body: bytes, kind: type[Model], most_quotes: int) -> Model:
    """Validate a body of JSON that says the name of each field once.

    Raises TooLarge for more quotation marks, MalformedBody, and pydantic's ValidationError for JSON that is no `kind`.
    """
    quotes = body.count(b'"')
    if quotes > most_quotes:
        raise TooLarge(f"the body has {quotes} quotation marks, expected at most {most_quotes} in one request")
    try:
        result = kind.model_validate_json(body)
    except ValidationError as error:
        if is_no_json(error):
            raise MalformedBody(first_error(error, fields="")) from error
        raise
    # Pydantic takes the last of two fields of one name. To keep the JSON that is parsed again short, arrays of numbers
    # are first replaced by one number, from the innermost outwards.
    replaced = 1
    while replaced:
        body, replaced = _NUMBERS.subn(b"0", body)
    _NAMES.decode(body.decode())
    return result


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        raise MalformedBody("the body says the name of a field twice, expected each name once")
    return read


_NAMES = json.JSONDecoder(object_pairs_hook=_each_name_once)  # once, since making a decoder takes microseconds


def is_no_json(error: ValidationError) -> bool:
    """Return whether what was validated is not even JSON."""
    return error.errors(include_url=False)[0]["type"] == "json_invalid"


def first_error(error: ValidationError, *, fields: str, hidden: frozenset[str] = frozenset()) -> str:
    """Return the first error as a sentence; an unknown field that is nearly a known one comes before all others.

    `fields` lists the known fields, for an error about an unknown one. `hidden` are the parts of pydantic's location
    that do not come from the client's JSON (the tags of a union).
    """
    if error.error_count() > MAX_LISTED:
        return f"the body has {error.error_count()} errors, expected an object with the fields {fields}"
    errors = error.errors(include_url=False)
    first, hint = _misspelt(errors, fields) or (errors[0], "")
    location = list(first["loc"])
    for tag in hidden & set(location):
        location.remove(tag)  # once: a field may be named as a tag is
    where = _place(location)
    expected = _expected(first["msg"])
    template = _TEMPLATES.get(first["type"], "{where} is {value}, expected {expected}")
    most = first.get("ctx", {}).get("max_length")
    value = first["input"]["type"] if first["type"] == "union_tag_invalid" else first["input"]
    return template.format(where=where, value=shown(value), expected=expected, fields=fields, most=most) + hint


def _misspelt(errors: Sequence[Any], fields: str) -> tuple[Any, str] | None:
    """Return the first unknown field of the body that is nearly a known one, and a hint at that; None without one."""
    for each in errors:
        if each["type"] == "extra_forbidden" and len(each["loc"]) == 1 and len(each["loc"][0]) <= LONGEST_NAME:
            near = get_close_matches(each["loc"][0], fields.split(", "), n=1)
            if near:
                return each, f"; did you mean '{near[0]}'?"
    return None


def channels_hint(actual: Shape, shape: Shape) -> str:
    """Return a hint where an array of shape `actual` has its channels last, for a model's input of `shape`; else ""."""
    channels_last = len(shape) == IMAGE_AXES and actual[-IMAGE_AXES:] == (*shape[1:], shape[0])
    return "; the channels come first, as numpy.moveaxis(image, -1, 0) has them" if channels_last else ""


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
    "model_type": "{where} is {value}, expected an object",
    "union_tag_not_found": "type is missing, expected {fields}",
    "union_tag_invalid": "type is {value}, expected {fields}",
    "extra_forbidden": "{where} is not a field here, expected one of {fields}",
    "too_short": "{where} is empty, expected at least one item",
    "too_long": "{where} has too many items, expected at most {most}",
}


MAX_PARAMETERS = 16
TOO_MANY = f"the query has more than {MAX_PARAMETERS} parameters, expected at most as many"


def has_too_many(query: bytes) -> bool:
    """Return whether a query string has more than MAX_PARAMETERS parameters, without parsing it."""
    return query.count(b"&") >= MAX_PARAMETERS


def parameters(query: bytes) -> dict[str, str]:
    """Return the parameters by name. Raises InvalidInput for too many of them, and for a name that is there twice."""
    if has_too_many(query):
        raise InvalidInput(TOO_MANY)
    by_name: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in by_name:
            raise InvalidInput(f"{shown(name)} is in the query twice, expected once")
        by_name[name] = value
    return by_name
