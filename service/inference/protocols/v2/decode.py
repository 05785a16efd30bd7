"""Decode an infer request: JSON, or JSON followed by tensors' bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from spikeserve.models.spec.parameters import Shape
from spikeserve.service.catalog.limits import FIELD_BYTES, AnswerSize
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.errors import shown
from spikeserve.service.inference.decoding.numbers import cut_array
from spikeserve.service.inference.decoding.validation import channels_hint
from spikeserve.service.inference.protocols.v2 import tensors
from spikeserve.service.inference.protocols.v2.parsing import InvalidRequest, parse
from spikeserve.service.inference.protocols.v2.render import InferRenderer, RequestedOutput
from spikeserve.service.inference.protocols.v2.schemas import InferRequest, InputTensor, RequestParameters
from spikeserve.service.inference.protocols.v2.tensors import INPUT, Array, Datatype
from spikeserve.service.inference.scheduling.answer import Renderer
from spikeserve.service.inference.scheduling.query import InSequence, Query
from spikeserve.service.inference.sessions.blob import Blobs, most_characters

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_DIGITS = 19
FLOATS = (Datatype.FP16, Datatype.FP32, Datatype.FP64)
MICROSECONDS = 10**6  # in a second


def answer_size(outputs: Sequence[RequestedOutput], samples: int, answer_id: str | None, size: AnswerSize) -> int:
    """Return the most bytes that an answer with these outputs of so many samples can take."""
    rows = [each.output.row_bytes(size, each.classes, binary=each.binary) for each in outputs]
    return size.tensors(rows, samples, answer_id or "")


@dataclass(frozen=True, kw_only=True)
class InferQuery(Query):
    """A decoded infer request."""

    datatype: Datatype = Datatype.FP32  # of its values, as they were sent


def decode(body: bytes, header_length: str | None, model: LoadedModel, blobs: Blobs) -> InferQuery:
    """Decode a request for `model`; `header_length` is the header with the length of the JSON, where there is one.

    `blobs` reads the state of a sequence. Raises MalformedBody, InvalidRequest, InvalidInput or TooLarge.
    """
    length, view = _length(header_length, len(body)), memoryview(body)
    text, binary = bytes(view[:length]), view[length:]
    model.limits.check_delimiters(text)
    cut = cut_array(text, b"data", np.float64)
    request = parse(text if cut is None else cut.rest, InferRequest)
    data = None if cut is None else cut.array
    if data is not None and not _is_data_of(request, data.shape):
        request, data = parse(text, InferRequest), None
    if request.model_name not in (None, model.name):
        raise InvalidRequest(f"model_name is {shown(request.model_name)}, expected '{model.name}' as in the path")
    return query_of(request, partial(_array, binary=binary, data=data), model, blobs)


def query_of(
    request: InferRequest,
    values: Callable[[InputTensor, Shape], Array],
    model: LoadedModel,
    blobs: Blobs,
    renderer: Callable[..., Renderer] = InferRenderer,
) -> InferQuery:
    """Return the query of a request whose fields are valid.

    `values` returns the array of the only input, (batch, *shape); it is called once the limits allow as much. `blobs`
    reads the state of a sequence, and `renderer` makes the answer's. Raises InvalidRequest, InvalidInput or TooLarge,
    and what `values` raises.
    """
    tensor, parameters = _only_input(request.inputs), request.parameters
    shape = tuple(tensor.shape)
    _check_shape(shape, model)
    time_steps = _time_steps(shape, parameters.time_steps, model)
    if parameters.stop is not None:
        model.check_stop(parameters.stop, time_steps, "parameters.stop")
    outputs = _requested(request, model)
    sequence = _sequence(parameters, shape[0], model, blobs)
    size = answer_size(outputs, shape[0], request.id, model.limits.answer)
    writes = blobs if sequence is not None and sequence.tells_state else None
    if writes is not None:
        size += FIELD_BYTES + most_characters(model)
    model.limits.check_answer(shape[0], size)
    samples = tensors.to_float32(values(tensor, shape), "inputs[0]")
    return InferQuery(
        samples,
        parameters.options(time_steps),
        size,
        renderer(model, outputs, shape[0], time_steps, request.id, size, writes),
        timeout=parameters.timeout / MICROSECONDS if parameters.timeout else None,
        sequence=sequence,
        datatype=tensor.datatype,
    )


def _sequence(parameters: RequestParameters, samples: int, model: LoadedModel, blobs: Blobs) -> InSequence | None:
    """Return the sequence that a request belongs to, if any. Raises InvalidRequest, and InvalidInput for a state."""
    named, state = parameters.sequence_id, parameters.sequence_state
    if named in (0, ""):
        if parameters.sequence_start or parameters.sequence_end:
            raise InvalidRequest("sequence_start or sequence_end is true, but sequence_id is missing")
        if state is not False:
            raise InvalidRequest("sequence_state is given, but sequence_id is missing")
        return None
    if samples != 1:
        raise InvalidRequest(f"inputs has {samples} samples, expected 1 in a request of a sequence")
    if parameters.stop is not None:
        raise InvalidRequest(
            f"parameters.stop is '{parameters.stop}', but a sequence goes on after the last step, expected no stop"
        )
    if isinstance(state, str) and not parameters.sequence_start:
        raise InvalidRequest(
            "sequence_state is a state, but sequence_start is not true, expected both: a sequence that has begun goes "
            "on from its own"
        )
    before = blobs.read(model, state).state if isinstance(state, str) else None
    return InSequence(named, parameters.sequence_start, parameters.sequence_end, before, state is not False)


def _length(header: str | None, size: int) -> int:
    """Return the length of a body's JSON: the header's value, or else the whole body."""
    if header is None:
        return size
    if not (header.isascii() and header.isdecimal() and len(header) <= MAX_DIGITS and int(header) <= size):
        raise InvalidRequest(f"{HEADER_LENGTH} is {shown(header)}, expected 0 to {size}, the length of the body")
    return int(header)


def _only_input(inputs: list[InputTensor]) -> InputTensor:
    if len(inputs) != 1:
        raise InvalidRequest(f"inputs holds {len(inputs)} tensors, expected one, '{INPUT}'")
    if inputs[0].name != INPUT:
        raise InvalidRequest(f"inputs[0].name is {shown(inputs[0].name)}, expected '{INPUT}'")
    return inputs[0]


def _is_data_of(request: InferRequest, shape: Shape) -> bool:
    """Return whether an array of this shape may be the data of the only input, of floats."""
    if len(request.inputs) != 1:
        return False
    tensor = request.inputs[0]
    return tensor.datatype in FLOATS and shape in (tuple(tensor.shape), (math.prod(tensor.shape),))


def _array(tensor: InputTensor, shape: Shape, binary: memoryview, data: Array | None) -> Array:
    """Return the input's values, from its data (or the array that was cut out of it) or the bytes after the JSON."""
    size = tensor.parameters.binary_data_size
    if tensor.datatype is Datatype.BYTES:
        raise InvalidRequest("inputs[0].datatype is BYTES, expected FP32 or another of numbers")
    if size is None:
        if len(binary):
            raise InvalidRequest(f"the body has {len(binary)} bytes after its JSON, but no input says binary_data_size")
        if tensor.data is None:
            raise InvalidRequest("inputs[0].data is missing")
        if data is not None:
            return tensors.to_datatype(data, tensor.datatype, "inputs[0].data").reshape(shape)
        return tensors.from_json(tensor.data, tensor.datatype, shape, "inputs[0].data")
    if tensor.data is not None:
        raise InvalidRequest("inputs[0] has data and binary_data_size, expected one of them")
    if size != len(binary):
        raise InvalidRequest(
            f"inputs[0].parameters.binary_data_size is {shown(size)}, but {len(binary)} bytes follow the JSON"
        )
    return tensors.from_bytes(binary, tensor.datatype, shape, "inputs[0]")


def _check_shape(shape: Shape, model: LoadedModel) -> None:
    expected = (tensors.VARIES, *tensors.sample_shape(model.spec))
    fits = len(shape) == len(expected) and all(
        extent == size or (size == tensors.VARIES and extent > 0) for extent, size in zip(shape, expected, strict=True)
    )
    if not fits:
        raise InvalidRequest(
            f"inputs[0].shape is [{', '.join(map(shown, shape))}], expected {list(expected)}, where -1 is 1 or more"
            f"{channels_hint(shape, model.spec.input.shape)}"
        )


def _time_steps(shape: Shape, asked: int | None, model: LoadedModel) -> int:
    """Return the time steps to run, once shape and steps are within the limits; no value has been read before that."""
    steps, where = asked or model.spec.time_steps, "parameters.time_steps"
    if model.spec.coding.per_step:
        if asked not in (None, shape[1]):
            raise InvalidRequest(f"parameters.time_steps is {shown(asked)}, but inputs[0] has {shape[1]} steps")
        steps, where = shape[1], "inputs[0].shape[1]"
    model.limits.check_steps(steps, where)
    model.limits.check_size(shape[0], steps)
    return steps


def _requested(request: InferRequest, model: LoadedModel) -> tuple[RequestedOutput, ...]:
    """Return the outputs of the answer: those that are named, or else all, `steps_used` only where samples may end."""
    known, binary = tensors.outputs_of(model.spec), request.parameters.binary_data_output
    if not request.outputs:
        stopped = request.parameters.stop is not None
        return tuple(
            RequestedOutput(output, binary) for output in known.values() if stopped or output is not tensors.STEPS_USED
        )
    requested: list[RequestedOutput] = []
    for index, asked in enumerate(request.outputs):
        output = known.get(asked.name)
        if output is None:
            raise InvalidRequest(f"outputs[{index}].name is {shown(asked.name)}, expected one of {', '.join(known)}")
        if any(output is other.output for other in requested):
            raise InvalidRequest(f"outputs[{index}].name is '{asked.name}' again, expected each output once")
        classes = asked.parameters.classification
        if classes is not None and not model.spec.scores.has_classes:
            raise InvalidRequest(
                f"outputs[{index}].parameters.classification is {shown(classes)}, but the model gives values and no "
                "classes"
            )
        if classes is not None and not output.per_class:
            values = ", ".join(name for name, each in known.items() if each.per_class)
            raise InvalidRequest(
                f"outputs[{index}].parameters.classification: '{asked.name}' has no value for each class, "
                f"expected one of {values}"
            )
        own = asked.parameters.binary_data
        requested.append(RequestedOutput(output, binary if own is None else own, classes))
    return tuple(requested)
