"""Render a run's result as the bytes of an answer: JSON, followed by the outputs that were requested as bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic_core import to_json

from models.engines import RunResult
from models.spec import Task
from service.catalog.loaded import LoadedModel
from service.inference.v2.decode import InferQuery
from service.inference.v2.schemas import InferResponse, ResultTensor
from service.inference.v2.tensors import Array, Datatype, json_values, to_bytes


@dataclass(frozen=True)
class Rendered:
    """An answer's body, and the length of its JSON if bytes follow it."""

    content: bytes
    header_length: int | None


def render(query: InferQuery, result: RunResult, model: LoadedModel) -> Rendered:
    """Render the answer to a query, with the outputs that it requested."""
    outputs: list[ResultTensor] = []
    blobs: list[bytes] = []
    for wanted in query.outputs:
        output, array = wanted.output, wanted.output.of(result, model.spec)
        datatype = output.datatype
        if wanted.classes is not None:
            datatype, array = Datatype.BYTES, classified(array, wanted.classes, model.spec)
        tensor: ResultTensor = {"name": output.name, "datatype": datatype, "shape": list(array.shape)}
        if wanted.binary:
            blobs.append(to_bytes(array, datatype))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = json_values(array)
        outputs.append(tensor)
    response: InferResponse = {"model_name": model.name, "model_version": str(model.version), "outputs": outputs}
    if query.id is not None:
        response["id"] = query.id
    header = to_json(response, inf_nan_mode="null")
    return Rendered(b"".join([header, *blobs]), len(header) if blobs else None)


def classified(values: Array, classes: int, spec: Task) -> Array:
    """Return the greatest values (batch, classes) as text, "value:index:label", the greatest first.

    A tie goes to the lower index. Floats are written with six decimals, as Triton does.
    """
    order = np.argsort(-values, axis=1, kind="stable")[:, :classes]
    form = "d" if values.dtype.kind == "i" else "f"
    rows = [
        [
            f"{value:{form}}:{index}:{spec.labels[index]}"
            for value, index in zip(row[top].tolist(), top.tolist(), strict=True)
        ]
        for row, top in zip(values, order, strict=True)
    ]
    return np.array(rows, object)
