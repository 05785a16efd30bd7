"""Parse this protocol's JSON: once, without repeated names, and validated against a schema."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ValidationError

from spikeserve.service.errors import MalformedBody, ServiceError, TooLarge
from spikeserve.service.inference.decoding.validation import each_name_once, first_error


class InvalidRequest(ServiceError):
    """A request that breaks the protocol, or does not fit the model."""

    status = HTTPStatus.BAD_REQUEST


MAX_BRACKETS = 2**20  # of lists and objects in a body: each takes far more memory than its two bytes in JSON
MAX_DEPTH = 64  # of lists and objects in each other: NumPy's greatest number of axes, which a nested tensor may have
MAX_QUOTES = 2**15  # a tensor's values are not strings, so that a request holds few
MAX_CONTROL_BYTES = 2**16  # of a body that controls models, which holds a flag or two
WHITESPACE = b" \t\n\r"  # JSON's definition; Python's includes more

# A string without an end goes on to the body's end: were it no match, each quotation mark in it would be tried as a
# beginning, in a time that grows by the square.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)

Request = TypeVar("Request", bound=BaseModel)


def parse(body: bytes, kind: type[Request]) -> Request:
    """Parse and validate `body`; raises MalformedBody, InvalidRequest or TooLarge."""
    return validated(_values(body), kind)


def validated(values: Any, kind: type[Request]) -> Request:
    """Validate values as JSON has them; raises InvalidRequest."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(first_error(error, fields=_fields(kind, error)).sentence) from error


def parse_optional(body: bytes, kind: type[Request]) -> Request:
    """Parse a body that may be empty, which means all defaults; raises as `parse` does.

    It is parsed on the event loop, and so must be short.
    """
    if len(body) > MAX_CONTROL_BYTES:
        raise TooLarge(f"the body has {len(body)} bytes, expected at most {MAX_CONTROL_BYTES} here")
    return parse(body, kind) if body.strip(WHITESPACE) else kind()


def _values(body: bytes) -> Any:
    for what, found, most in (
        ("lists and objects", body.count(b"[") + body.count(b"{"), MAX_BRACKETS),
        ("quotation marks", body.count(b'"'), MAX_QUOTES),
    ):
        if found > most:
            raise TooLarge(f"the body has {found} {what}, expected at most {most}; send data flat or as bytes")
    if _depth(body) > MAX_DEPTH:
        raise MalformedBody(
            f"the body is nested too deep, expected at most {MAX_DEPTH} lists and objects in each other"
        )
    try:
        return _JSON.decode(body.decode())
    except UnicodeDecodeError as error:
        raise MalformedBody(f"the body is not UTF-8: byte {error.start} is not") from error
    except json.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise MalformedBody("the body is not JSON: a number is out of range") from error


def _depth(body: bytes) -> int:
    """Return how many lists and objects lie in each other at most, or a number that is no smaller, up to MAX_DEPTH.

    How deep Python's own parser goes depends on its version.
    """
    opened = body.count(b"[") + body.count(b"{")
    if opened <= MAX_DEPTH:
        return opened
    codes = np.frombuffer(_STRING.sub(b"", body), np.uint8) | 32  # which makes braces of brackets
    braces = codes[(codes == ord("{")) | (codes == ord("}"))]
    return int(np.where(braces == ord("{"), 1, -1).cumsum().max(initial=0))


def _no_number(text: str) -> NoReturn:
    raise MalformedBody(f"the body holds {text}, expected finite numbers")


_JSON = json.JSONDecoder(
    object_pairs_hook=each_name_once, parse_constant=_no_number
)  # once: making one takes microseconds


def _fields(kind: type[BaseModel], error: ValidationError) -> str:
    """Return the names of the fields of the object that has the first error."""
    for part in error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]:
        field = kind.model_fields.get(str(part))
        kind = kind if field is None else _model_in(field.annotation) or kind
    return ", ".join(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model in a field's annotation, itself or as a list's items, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := _model_in(each))), None)
