"""Requests of the Open Inference Protocol for the toy model, and what their answers hold."""

import json
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/toy/infer"


def request(values: Any, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """Return an infer request with `values` as JSON."""
    array = np.asarray(values)
    tensor = {"name": "inputs", "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}
    return {"inputs": [tensor], **more}


def asked(**parameters: Any) -> dict[str, Any]:
    """Return a request for one sample that fires the first output of the toy at each of its steps."""
    return request([[1.0, 0.0]], parameters=parameters)


def binary_request(array: NDArray[Any], datatype: str = "FP32", **more: Any) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of an infer request with `array` as bytes."""
    blob = array.tobytes()
    tensor = {"name": "inputs", "shape": list(array.shape), "datatype": datatype}
    header = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(blob)}}], **more}).encode()
    return header + blob, {HEADER: str(len(header))}


def outputs(answer: httpx.Response) -> dict[str, Any]:
    """Return the outputs of an answer by name, each nested as its shape says, whether JSON or bytes."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(HEADER, len(answer.content)))
    blobs, found = answer.content[length:], {}
    for output in json.loads(answer.content[:length])["outputs"]:
        if "data" in output:
            values = np.array(output["data"], object)
        else:
            size = output["parameters"]["binary_data_size"]
            blob, blobs = blobs[:size], blobs[size:]
            values = np.array(values_of(blob, output["datatype"]), object)
        found[output["name"]] = values.reshape(output["shape"]).tolist()
    assert blobs == b""
    return found


def values_of(blob: bytes, datatype: str) -> list[Any]:
    """Return the values of an output that came as bytes."""
    if datatype != "BYTES":
        return np.frombuffer(blob, {"INT64": "<i8", "FP32": "<f4"}[datatype]).tolist()
    texts = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "little")
        texts.append(blob[4:end].decode())
        blob = blob[end:]
    return texts
