"""The `onnx` engine: ONNX Runtime on the graph that `plugins.onnx.graph` builds.

It reads no graph from a bundle: a model.onnx there is for other tools.
"""

from __future__ import annotations

import itertools
import os
import re
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Record, RunResult, joined
from spikeserve.models.engines.blocks import DenseEngine
from spikeserve.models.engines.readout import check_spikes, read_out
from spikeserve.models.engines.state import READ, State, arrays_of, steps_since_rest
from spikeserve.models.engines.stop import Stop
from spikeserve.models.errors import EngineUnavailable, InvalidInput
from spikeserve.models.neurons import counts_steps
from spikeserve.models.spec import Coding, Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Neuron, Spiking
from spikeserve.plugins.onnx.graph import build, read_at_each_step

# From 1.29 on ONNX Runtime sends telemetry to its makers, and keeps an id on the disk for it, unless turned off.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# ONNX Runtime writes its own lines to standard error, which are no JSON. Its errors all come as exceptions too, so that
# only what ends the process is still written there.
FATAL = 4
# ONNX Runtime would otherwise make 1 / a * b into b / a, which rounds once instead of twice.
REWRITES_THAT_ROUND_OTHERWISE = ["DivMulFusion"]
CODE_OR_PLACE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+ [^(]*\(.*?\) "
)  # a file, a function
FAILED_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: ")
onnxruntime.set_default_logger_severity(FATAL)


class OnnxEngine(DenseEngine):
    """Runs the ONNX graph of `network` on `threads` threads per call."""

    name = "onnx"

    def __init__(self, network: Network, threads: int = 1) -> None:
        super().__init__(network, threads)
        self.session = open_session(build(network).SerializeToString(), threads)
        self.neurons = [node.name for node in self.spec.nodes if isinstance(node, Neuron)]
        self.spiking = [node.name for node in self.spec.spiking_nodes]
        self.begun = any(isinstance(node, Neuron) and counts_steps(node) for node in self.spec.nodes)
        self.by_step = any(node.by_step for node in self.spec.nodes)
        # The outputs that the answer is computed from: counts where the last layer fires, and what is read otherwise.
        readout, last = self.spec.readout, self.spec.readout_node
        self.counted = ["spike_counts"] if isinstance(last, Spiking) else []
        self.read = [] if readout is Readout.SPIKE_COUNT else [read_at_each_step(self.spec)]
        self.carried = [name for name in arrays_of(network) if name not in READ]
        self.most = {node.name: f"{node.name}.most" for node in self.spec.spiking_nodes if node.several}
        counted = [
            *self.counted,
            *self.read,
            "synaptic_operations",
            *(f"{name}.spikes" for name in self.spiking),
            *self.most.values(),
        ]
        self.always = [*counted, *(f"next.{name}" for name in self.carried)]

    @override
    def run_dense(
        self, inputs: DenseInputs, state: State | None, record: Record, stop: Stop | None
    ) -> tuple[RunResult, State]:
        # Where the graph asks how many steps there were, it knows one number for a whole batch: samples of another
        # number are then run apart.
        if state is None or not (self.begun or self.by_step):
            return self._run(inputs, state, record, stop)
        asked, which = np.unique(state.steps if self.by_step else state.steps > 0, return_inverse=True)
        if len(asked) < 2:
            return self._run(inputs, state, record, stop)
        parts = [np.flatnonzero(which == each) for each in range(len(asked))]
        done = [self._run(inputs[part], state[part], record, stop) for part in parts]
        places = np.argsort(np.concatenate(parts))
        return joined([result for result, _ in done])[places], State.joined([after for _, after in done])[places]

    def _run(
        self, inputs: DenseInputs, state: State | None, record: Record, stop: Stop | None
    ) -> tuple[RunResult, State]:
        rasters, membranes = Record.RASTER in record, Record.MEMBRANE in record
        needed = self._outputs(rasters, membranes)
        answers = run_session(self.session, needed, self._feed(inputs, state), stop)
        outputs = dict(zip(needed, answers, strict=True))
        for name, most in self.most.items():
            check_spikes(name, float(outputs[most].max(initial=0)))
        counts, values = ([outputs[name] for name in names] or [None] for names in (self.counted, self.read))
        answer = read_out(self.spec.readout, counts[0], values[0], inputs.time_steps, state)
        result = RunResult(
            spike_counts=answer.spike_counts,
            readout=answer.readout,
            synaptic_operations=outputs["synaptic_operations"],
            spikes_per_node={name: outputs[f"{name}.spikes"] for name in self.spiking},
            rasters={name: outputs[f"{name}.raster"].astype(np.int32) for name in self.spiking} if rasters else {},
            membranes={name: outputs[f"{name}.membrane"] for name in self.neurons} if membranes else {},
        )
        steps = steps_since_rest(state, inputs.batch, inputs.time_steps)
        arrays = {name: outputs[f"next.{name}"] for name in self.carried}
        return result, State(steps, arrays | answer.carried)

    def _outputs(self, rasters: bool, membranes: bool) -> list[str]:
        """Return the names of the outputs that a run needs, each once."""
        outputs = list(self.always)
        outputs += [f"{name}.raster" for name in self.spiking] if rasters else []
        outputs += [f"{name}.membrane" for name in self.neurons] if membranes else []
        return list(dict.fromkeys(outputs)) if rasters or membranes else outputs

    def _feed(self, inputs: DenseInputs, state: State | None) -> dict[str, NDArray[Any]]:
        feed: dict[str, NDArray[Any]] = {"inputs": inputs.steps}
        if self.spec.coding is Coding.DIRECT:
            feed = {"inputs": inputs.steps[0], "time_steps": np.array(inputs.time_steps, np.int64)}
        if state is not None:
            feed |= {f"state.{name}": state.arrays[name] for name in self.carried}
            if self.begun:
                feed["state.begun"] = np.array(state.steps.any(), np.float32)
            if self.by_step:
                feed["state.steps"] = np.array([state.steps.max(initial=0)], np.int64)
        return feed


def open_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Return a session that runs a serialised model on the CPU; raises EngineUnavailable where ONNX Runtime cannot."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=REWRITES_THAT_ROUND_OTHERWISE
        )
    except Exception as error:  # onnxruntime's exceptions have no common base class but Exception
        raise EngineUnavailable(f"engine 'onnx': ONNX Runtime cannot load the network: {said_by(error)}") from error


def run_session(
    session: onnxruntime.InferenceSession, outputs: list[str], feed: dict[str, NDArray[Any]], stop: Stop | None
) -> list[Any]:
    """Run a session and return its `outputs`; raises Stopped, and InvalidInput where a node fails.

    ONNX Runtime looks whether it is to stop before each node, in the body of a loop as well; a node runs to its end.
    """
    options = onnxruntime.RunOptions()
    options.log_severity_level = FATAL  # a run that is stopped is no fault
    stop = stop or Stop()
    stop.notify(partial(setattr, options, "terminate", True))
    stop.check()
    try:
        values: list[Any] = session.run(outputs, feed, options)
    except Exception as error:  # onnxruntime's exceptions have no common base class but Exception
        stop.check()
        raise InvalidInput(f"engine 'onnx': ONNX Runtime fails on these inputs: {said_by(error)}") from error
    return values


def said_by(error: Exception) -> str:
    """Return the first line of what ONNX Runtime says of an error, without its codes and the places in its sources."""
    line = next(itertools.chain(str(error).splitlines(), [type(error).__name__]))
    return FAILED_NODE.sub(r"\1 node '\2': ", CODE_OR_PLACE.sub("", line))
