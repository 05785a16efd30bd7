"""Render a run's result as the bytes of an answer: JSON, followed by the outputs that were requested as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from pydantic_core import to_json

from spikeserve.models.engines import RunResult
from spikeserve.models.spec import Task
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.decoding.pieces import Pieces, as_array, as_list, joined, json_fragments
from spikeserve.service.inference.protocols.v2.decode import InferQuery, RequestedOutput
from spikeserve.service.inference.protocols.v2.outputs import STEPS_USED
from spikeserve.service.inference.protocols.v2.schemas import InferResponse, ResultTensor
from spikeserve.service.inference.protocols.v2.tensors import Array, Datatype, to_bytes


@dataclass(frozen=True)
class Rendered:
    """An answer's body, and the length of its JSON if bytes follow it."""

    content: Pieces
    header_length: int | None


def render(
    query: InferQuery, result: RunResult, model: LoadedModel, state: str | None = None, *, short: bool
) -> Rendered:
    """Render the answer to a query, with the outputs that it requested: at once if it is `short`, else in pieces.

    `state` is that of its sequence, where it asked for it.
    """
    outputs: list[ResultTensor] = []
    blobs: list[list[bytes]] = []
    for wanted, datatype, array in output_arrays(query, result, model):
        tensor: ResultTensor = {"name": wanted.output.name, "datatype": datatype, "shape": list(array.shape)}
        if wanted.binary:
            blobs.append(to_bytes(array, datatype))
            tensor["parameters"] = {"binary_data_size": sum(map(len, blobs[-1]))}
        else:
            tensor["data"] = as_list(array.ravel()) if short else as_array(array.ravel())
        outputs.append(tensor)
    response: InferResponse = {"model_name": model.name, "model_version": str(model.version), "outputs": outputs}
    if query.id is not None:
        response["id"] = query.id
    if state is not None:
        response["parameters"] = {"sequence_state": state}
    header = [to_json(response, inf_nan_mode="null")] if short else list(json_fragments(response))
    length = sum(map(len, header)) if blobs else None
    return Rendered(joined(chain(header, *blobs)), length)


def output_arrays(
    query: InferQuery, result: RunResult, model: LoadedModel
) -> Iterator[tuple[RequestedOutput, Datatype, Array]]:
    """Yield each output that a query requested, with its datatype and its array; of BYTES, the array holds text."""
    if result.steps_used is None and any(wanted.output is STEPS_USED for wanted in query.outputs):  # all of them
        result = replace(result, steps_used=np.full(len(result.readout), query.time_steps))
    for wanted in query.outputs:
        array = wanted.output.of(result, model.spec)
        if wanted.classes is None:
            yield wanted, wanted.output.datatype, array
        else:
            yield wanted, Datatype.BYTES, classified(array, wanted.classes, model.spec)


def classified(values: Array, classes: int, spec: Task) -> Array:
    """Return the greatest values (batch, classes) as text, "value:index:label", the greatest first.

    A tie goes to the lower index. Floats are written with six decimals, as Triton does.
    """
    form = "d" if values.dtype.kind == "i" else "f"
    rows = []
    for row in values:  # one sample at a time, since sorting all at once would hold the interpreter
        top = np.argsort(-row, kind="stable")[:classes]
        chosen = zip(row[top].tolist(), top.tolist(), strict=True)
        rows.append([f"{value:{form}}:{index}:{spec.labels[index]}" for value, index in chosen])
    return np.array(rows, object)
