"""The outputs of a batch that has run, each computed and written once for all requests that share it."""

from __future__ import annotations

from pydantic_core import to_json

from spikeserve.models.engines import RunResult
from spikeserve.service.catalog.loaded import LoadedModel
from spikeserve.service.inference.protocols.v2.tensors import Array, Datatype, Output


class Columns:
    """The outputs for the samples of a batch, by what the protocol v2 calls them."""

    def __init__(self, result: RunResult, model: LoadedModel) -> None:
        self.result = result
        self.model = model
        self.arrays: dict[str, Array] = {}
        self.texts: dict[str, list[bytes]] = {}

    def array(self, output: Output) -> Array:
        """Return an output, (batch, width)."""
        found = self.arrays.get(output.name)
        if found is None:
            found = self.arrays[output.name] = output.of(self.result, self.model.spec)
        return found

    def text(self, output: Output) -> list[bytes]:
        """Return an output of each sample as JSON, without the brackets of its row; NaN and infinities are null."""
        found = self.texts.get(output.name)
        if found is None:
            if output.datatype is Datatype.BYTES:
                found = [self.model.label_texts[index] for index in self.result.class_index.tolist()]
            else:
                found = to_json(self.array(output).tolist(), inf_nan_mode="null")[2:-2].split(b"],[")
            self.texts[output.name] = found
        return found
