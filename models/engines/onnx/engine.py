"""The `onnx` engine: ONNX Runtime on a bundle's model.onnx, or on a graph built here where the onnx package is."""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.coding import EncodedInputs
from models.engines.base import Record, RunResult, State, from_rest_only
from models.engines.onnx import fields as onnx_fields
from models.errors import EngineUnavailable, InvalidBundle
from models.spec import Coding, Spec
from models.spec.network import Network

# From 1.29 on ONNX Runtime reports its use to its makers and keeps an id on disk for that, unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

QUIET = 3  # onnxruntime's level for errors only


class OnnxEngine:
    """Runs a serialised model that `models.engines.onnx.graph` built from `spec`, on `threads` threads per call."""

    name = "onnx"

    def __init__(self, spec: Spec, model: bytes, threads: int = 1) -> None:
        self.spec = spec
        self.session = open_session(model, threads)
        self._check_interface()

    def run(
        self, inputs: EncodedInputs, state: State | None = None, *, record: Record = Record.NONE
    ) -> tuple[RunResult, State]:
        """Run every sample from rest."""
        from_rest_only(state, self.name)
        wanted = ["spike_counts", "readout", "synaptic_operations"]
        spiking = [node.name for node in self.spec.spiking_nodes]
        neurons = spiking + ([] if self.spec.nodes[-1].name in spiking else [self.spec.nodes[-1].name])
        wanted += [f"{name}.spikes" for name in spiking]
        wanted += [f"{name}.raster" for name in spiking] if Record.RASTER in record else []
        wanted += [f"{name}.membrane" for name in neurons] if Record.MEMBRANE in record else []
        found = dict(zip(wanted, self.session.run(wanted, self._feed(inputs)), strict=True))
        result = RunResult(
            spike_counts=found["spike_counts"],
            readout=found["readout"],
            synaptic_operations=found["synaptic_operations"],
            spikes_per_node={name: found[f"{name}.spikes"] for name in spiking},
            rasters={name: found[f"{name}.raster"].astype(np.int32) for name in spiking if f"{name}.raster" in found},
            membranes={name: found[f"{name}.membrane"] for name in neurons if f"{name}.membrane" in found},
        )
        return result, State(inputs.time_steps, {})

    def _feed(self, inputs: EncodedInputs) -> dict[str, NDArray[Any]]:
        if self.spec.coding is Coding.DIRECT:
            return {"inputs": inputs.steps[0], "time_steps": np.array(inputs.time_steps, np.int64)}
        return {"inputs": inputs.steps}

    def _check_interface(self) -> None:
        """Raise InvalidBundle where the model's inputs and outputs are not those that the spec calls for."""
        shape = list(self.spec.input.shape)
        direct = self.spec.coding is Coding.DIRECT
        wanted = {"inputs": shape} | ({"time_steps": []} if direct else {})
        given = {value.name: value.shape[1 if direct else 2 :] for value in self.session.get_inputs()}
        if given != wanted:
            raise InvalidBundle(f"model.onnx: its inputs are {given} per sample, but the spec needs {wanted}")
        outputs = {value.name for value in self.session.get_outputs()}
        needed = {"spike_counts", "readout", "synaptic_operations"}
        needed |= {f"{node.name}.spikes" for node in self.spec.spiking_nodes}
        if needed - outputs:
            raise InvalidBundle(f"model.onnx: lacks the output '{min(needed - outputs)}' that the spec calls for")


def open_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Return a session that runs a serialised model on the CPU.

    Raises InvalidBundle, and does so before ONNX Runtime sees a model that asks for other files or operators.
    """
    onnx_fields.check(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises classes of its own that share no base but Exception
        raise InvalidBundle(f"model.onnx: ONNX Runtime cannot load it: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its name where it has none."""
    return next(itertools.chain(str(error).splitlines(), [type(error).__name__]))


def build_model(network: Network) -> bytes:
    """Return the serialised ONNX model of `network`; raises EngineUnavailable where the onnx package is missing."""
    try:
        from models.engines.onnx import graph as onnx_graph
    except ImportError as error:
        raise EngineUnavailable(
            "engine 'onnx': the bundle holds no model.onnx, and building one needs the onnx package (extra 'onnx')"
        ) from error
    return bytes(onnx_graph.build(network).SerializeToString())
