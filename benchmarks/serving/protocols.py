"""How a contestant is asked: where, with which body, and where in its answer the spike counts stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.serving.networks import Served


@dataclass(frozen=True)
class Protocol:
    """A path in which {name} is the model's, the body of a request, and how to read the counts of its one sample."""

    title: str
    path: str
    body: Callable[[Served], bytes]
    counts: Callable[[bytes], list[int]]

    def path_of(self, served: Served) -> str:
        """Return where a model is asked."""
        return self.path.format(name=served.name)


def _plain_body(served: Served) -> bytes:
    return served.body


def _plain_counts(answer: bytes) -> list[int]:
    return list(json.loads(answer)["predictions"][0]["spike_counts"])


def _v2_body(served: Served) -> bytes:
    values = served.image.astype(int).ravel().tolist()
    tensor = {"name": "inputs", "shape": [1, served.inputs], "datatype": "FP32", "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


def _v2_counts(answer: bytes) -> list[int]:
    return next(list(output["data"]) for output in json.loads(answer)["outputs"] if output["name"] == "spike_counts")


NATIVE = Protocol("native", "/models/{name}/predict", _plain_body, _plain_counts)
PLAIN = Protocol("native", "/predict", _plain_body, _plain_counts)  # the same where only one model is served
V2 = Protocol("v2", "/v2/models/{name}/infer", _v2_body, _v2_counts)
