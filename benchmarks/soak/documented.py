"""Requests that schemathesis makes of the OpenAPI document, by it and against it; answers are checked against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
CONTROL = r"/(un)?load$"  # the paths that load and unload models
TIMEOUT = "X-Request-Timeout-Ms"
SECONDS = 60
Case: TypeAlias = schemathesis.Case[Any]
Operation: TypeAlias = schemathesis.APIOperation[Any, Any, Any, Any]


def validate(case: Case) -> None:
    """Send a request and check its answer against the document; raises FailureGroup."""
    case.call_and_validate(checks=CHECKS, timeout=SECONDS)


def ask_all(
    document: schemathesis.BaseSchema,
    names: Sequence[str],
    examples: int,
    ask: Callable[[Case], None] = validate,
    of_seed: int = 20,
) -> int:
    """Ask every operation of a document `examples` times for the models of these names; return how many there are.

    An operation with a body is asked as often by requests that are against the document. Others have little to vary,
    and are asked a quarter as often.
    """
    operations = 0
    for found in document.get_all_operations():
        if not isinstance(found, Ok):
            raise TypeError(f"an operation of the document cannot be read: {found}")
        operation = found.ok()
        for mode in list(GenerationMode) if operation.body else [GenerationMode.POSITIVE]:
            _ask(operation, mode, names, examples if operation.body else -(-examples // 4), ask, of_seed)
        operations += 1
    return operations


def _ask(
    operation: Operation,
    mode: GenerationMode,
    names: Sequence[str],
    examples: int,
    ask: Callable[[Case], None],
    of_seed: int,
) -> None:
    # What is wrong with a request must not be a name that is put right here. Of an invented name there is only to say
    # that it is unknown, so that most of the names are known.
    drawn = [*names] if mode is GenerationMode.NEGATIVE else [*names, None]

    @seed(of_seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode), name=st.sampled_from(drawn))
    def check(case: Case, name: str | None) -> None:
        content = case.as_transport_kwargs().get("data")
        # White space is no JSON and so against the document, yet where a body is optional it is as good as none.
        assume(not isinstance(content, bytes) or content == b"" or content.strip())
        if name is not None:
            known = {"name": name, "version": "1"}
            case.path_parameters.update({key: known[key] for key in case.path_parameters})
        asked = str(case.headers.get(TIMEOUT, ""))
        if asked.isascii() and asked.isdigit():
            case.headers[TIMEOUT] = f"{asked}0000"  # as sound as before, and more than a slow machine takes
        ask(case)

    check()


def count_wrong(url: str, names: Sequence[str], examples: int) -> tuple[int, int]:
    """Ask a server, but for loading and unloading; return how many requests there were, and how many wrong answers."""
    requests = wrong = 0

    def ask(case: Case) -> None:
        nonlocal requests, wrong
        requests += 1
        try:
            validate(case)
        except (FailureGroup, OSError):  # `requests` raises kinds of the second where there is no answer
            wrong += 1

    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    ask_all(document.exclude(path_regex=CONTROL), names, examples, ask)
    return requests, wrong
