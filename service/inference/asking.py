"""What a request for a model goes through in either protocol: its time, its body, its run, and what is told of it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from service.catalog.served import ServedModel
from service.http.access import ANSWERED, LOGGED
from service.inference.deadlines import deadline_of
from service.inference.jobs import Answer, Content, Form
from service.inference.scheduler import Scheduler


async def ask(request: Request, model: ServedModel, form: Form[Any, Content]) -> Answer[Content]:
    """Return what `model` answers to a request, and have the log, the spans and the metrics tell of it.

    Raises MalformedHeader, and what the scheduler raises while it receives and answers.
    """
    state = request.app.state
    scheduler: Scheduler = state.scheduler
    logged = request.scope[LOGGED]
    logged |= {"model": model.name, "version": model.version}
    model.requests.count += 1
    try:
        deadline = deadline_of(request.scope, state.settings.request_timeout_ms)
        body = await scheduler.receive(model, request, deadline)
        answer = await scheduler.answer(model, form, body, deadline, request.receive)
    finally:
        model.requests.count -= 1
    logged["samples"] = answer.samples
    request.scope[ANSWERED] = answer
    state.metrics.models.count_answer(model, answer)
    return answer
