"""The query parameters of a predict request whose body is not JSON, and so has no fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from spikeserve.models.coding import MAX_SEED
from spikeserve.models.engines.anytime import StopRule
from spikeserve.models.errors import InvalidInput
from spikeserve.service.inference.decoding.validation import first_error, parameters
from spikeserve.service.inference.scheduling.query import Returned


def _listed(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


class Options(BaseModel):
    """The fields of a request beside its inputs, as text: `?time_steps=8&seed=1&return=raster,membrane`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_steps: int | None = Field(default=None, ge=1, description="How many steps to run.")
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="The seed of `rate` coding.")
    stop: StopRule | None = Field(default=None, description="When a sample may end before its last step.")
    returned: Annotated[list[Returned], BeforeValidator(_listed)] = Field(
        default=[],
        alias="return",
        max_length=len(Returned),
        description="What each prediction also holds, separated by commas.",
    )


NAMES = tuple(field.alias or name for name, field in Options.model_fields.items())


def read_options(query: bytes) -> Options:
    """Return the options of a query string; raises InvalidInput."""
    if not query:
        return Options()
    try:
        return Options.model_validate(parameters(query))
    except ValidationError as error:
        raise InvalidInput(first_error(error, fields=", ".join(NAMES)).sentence) from error


def refuse_options(query: bytes) -> None:
    """Raise InvalidInput where a query string names one of the options: JSON has them as its fields."""
    given = parameters(query)
    for name in NAMES:
        if name in given:
            raise InvalidInput(f"{name} is a parameter of the query, expected a field of the JSON body")
