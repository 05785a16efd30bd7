"""Parse this protocol's JSON, validated against a schema."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from spikeserve.service.errors import ServiceError, TooLarge
from spikeserve.service.inference.decoding.validation import first_error, read_json


class InvalidRequest(ServiceError):
    """A request that breaks the protocol, or does not fit the model."""

    status = HTTPStatus.BAD_REQUEST


MAX_BRACKETS = 2**20  # of lists and objects in a body: each takes far more memory than its two bytes in JSON
MAX_QUOTES = 2**15  # a tensor's values are not strings, so that a request holds few
MAX_CONTROL_BYTES = 2**16  # of a body that controls models, which holds a flag or two
WHITESPACE = b" \t\n\r"  # JSON's definition; Python's includes more

Request = TypeVar("Request", bound=BaseModel)


def parse(body: bytes, kind: type[Request]) -> Request:
    """Parse and validate `body`; raises MalformedBody, InvalidRequest or TooLarge."""
    brackets = body.count(b"[") + body.count(b"{")
    if brackets > MAX_BRACKETS:
        raise TooLarge(f"the body has {brackets} lists and objects, expected at most {MAX_BRACKETS}; send bytes")
    try:
        return read_json(body, kind, MAX_QUOTES)
    except ValidationError as error:
        raise _refused(kind, error) from error


def validated(values: Any, kind: type[Request]) -> Request:
    """Validate values as JSON has them; raises InvalidRequest."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _refused(kind, error) from error


def parse_optional(body: bytes, kind: type[Request]) -> Request:
    """Parse a body that may be empty, which means all defaults; raises as `parse` does.

    It is parsed on the event loop, and so must be short.
    """
    if len(body) > MAX_CONTROL_BYTES:
        raise TooLarge(f"the body has {len(body)} bytes, expected at most {MAX_CONTROL_BYTES} here")
    return parse(body, kind) if body.strip(WHITESPACE) else kind()


def _refused(kind: type[BaseModel], error: ValidationError) -> InvalidRequest:
    """Return the first error; that of an unknown field names the fields that its object has."""
    for part in error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]:
        field = kind.model_fields.get(str(part))
        kind = kind if field is None else _model_in(field.annotation) or kind
    return InvalidRequest(first_error(error, fields=", ".join(kind.model_fields)))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model in a field's annotation, itself or as a list's items, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for each in get_args(annotation) if (model := _model_in(each))), None)
