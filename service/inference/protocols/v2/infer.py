"""One infer request of the protocol: through the pipeline, and counted in the protocol's statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Protocol, TypeVar

from spikeserve.models.errors import InvalidInput
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import ServiceError
from spikeserve.service.inference.decoding.body import RequestBody
from spikeserve.service.inference.protocols.v2.decode import InferQuery
from spikeserve.service.inference.protocols.v2.errors import InvalidRequest
from spikeserve.service.inference.scheduling.codec import Codec
from spikeserve.service.inference.scheduling.job import Answer
from spikeserve.service.inference.scheduling.pipeline import Pipeline
from spikeserve.service.inference.scheduling.sender import Sender
from spikeserve.service.telemetry.record import RequestRecord
from spikeserve.service.telemetry.v2_statistics import InferStatistics


class Timed(Protocol):
    """An answer's content, which says how many seconds decoding and rendering took."""

    @property
    def decode_seconds(self) -> float:
        """The seconds of decoding the request."""
        ...

    @property
    def render_seconds(self) -> float:
        """The seconds of rendering the answer."""
        ...


Content = TypeVar("Content", bound=Timed)


async def infer(
    pipeline: Pipeline,
    statistics: InferStatistics,
    model: LoadedModel,
    codec: Callable[[], Codec[InferQuery, Content]],
    headers: Mapping[bytes, bytes],
    body: RequestBody,
    record: RequestRecord,
    sender: Sender,
) -> Answer[Content]:
    """Return the answer of `model`; raises what `codec` and the pipeline raise, InvalidInput as InvalidRequest."""
    began = perf_counter()
    try:
        answer = await pipeline.answer(model, codec(), headers, body, record, sender)
    except InvalidInput as error:
        statistics.count_failure(model.name, model.version, perf_counter() - began)
        raise InvalidRequest(str(error)) from error  # where the native routes say 422, the protocol says 400
    except ServiceError:
        statistics.count_failure(model.name, model.version, perf_counter() - began)
        raise
    statistics.count_success(model, answer.record, answer.content.decode_seconds, answer.content.render_seconds)
    return answer
