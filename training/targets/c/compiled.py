"""A bundle's C file compiled and run here, as an engine runs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve.models.coding import Inputs
from spikeserve.models.engines.base import Record, RunResult
from spikeserve.models.engines.blob import from_bytes, to_bytes
from spikeserve.models.engines.state import State
from spikeserve.models.engines.stop import Stop, check
from spikeserve.models.spec import Coding, Spec
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Spiking
from spikeserve.training.errors import InvalidConfig
from spikeserve.training.targets.c import state as blob
from spikeserve.training.targets.c.source import write

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
NO_BUNDLE = "0" * 64


class CompiledC:
    """Runs the C file of a network, one sample after the other.

    Raises InvalidConfig where there is no compiler: the command in the environment's CC, or `cc`.
    """

    name = "c"

    def __init__(self, network: Network, compiler: Sequence[str] = (), flags: Sequence[str] = FLAGS) -> None:
        self.network = network
        self.source = write(network, "served", NO_BUNDLE)
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "served.c").write_text(self.source.code + self._offsets())
        (folder / "served.h").write_text(self.source.header)
        command = [*(compiler or os.environ.get("CC", "cc").split())]
        if shutil.which(command[0]) is None:
            raise InvalidConfig(f"the C compiler is '{command[0]}', which is not installed; set CC to one that is")
        library = folder / "served.so"
        done = subprocess.run(
            [*command, *flags, "-o", str(library), str(folder / "served.c")], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise InvalidConfig(f"{command[0]} refuses the file: {done.stderr[:2000]}")
        self.library = ctypes.CDLL(str(library))
        self.layout = blob.Layout(network, NO_BUNDLE)

    @property
    def spec(self) -> Spec:
        """The network that it runs."""
        return self.network.spec

    def _offsets(self) -> str:
        """Write where the output of each node lies in the struct, for what is recorded."""
        rows = "".join(
            f"  offsetof(served_net, {buffer.removeprefix('net->')}),\n"
            for buffer in self.source.pieces.buffers.values()
        )
        return f"\nconst size_t served_size = sizeof(served_net);\nconst size_t served_outputs[] = {{\n{rows}}};\n"

    def run(
        self,
        inputs: Inputs,
        state: State | None = None,
        *,
        record: Record = Record.NONE,
        stop: Stop | None = None,
    ) -> tuple[RunResult, State]:
        """Run every sample, as an engine does; no membranes are recorded and no operations counted."""
        dense = inputs.dense()
        spec, batch, steps = self.spec, dense.batch, dense.time_steps
        rasters = {name: np.zeros((steps, batch, *spec.output_shapes[name]), np.int32) for name in spec.layers}
        counts, readout = np.zeros((batch, spec.classes), np.int64), np.zeros((batch, spec.classes), np.float32)
        states = []
        for sample in range(batch):
            net = self._begun(None if state is None else state[sample : sample + 1])
            values = np.ascontiguousarray(dense.steps[:, sample], np.float32).reshape(len(dense.steps), -1)
            self._run_sample(net, values, steps, {name: raster[:, sample] for name, raster in rasters.items()})
            self.library.served_counts(net, _pointer(counts[sample]))
            self.library.served_readout(net, _pointer(readout[sample]))
            states.append(self._state(net))
            check(stop)
        per_node = {
            name: raster.sum(axis=(0, *range(2, raster.ndim)), dtype=np.int64) for name, raster in rasters.items()
        }
        kept = rasters if Record.RASTER in record else {}
        return RunResult(counts, readout, None, per_node, rasters=kept), State.joined(states) if states else State.rest(self.network, 0)

    def _begun(self, state: State | None) -> Any:
        net = ctypes.create_string_buffer(ctypes.c_size_t.in_dll(self.library, "served_size").value)
        self.library.served_init(net)
        if state is not None and self.library.served_state_load(net, given := to_bytes(state, NO_BUNDLE), ctypes.c_size_t(len(given))):
            raise InvalidConfig("the C file refuses a state that the server gave")
        return net

    def _run_sample(self, net: Any, values: NDArray[Any], steps: int, rasters: Mapping[str, NDArray[Any]]) -> None:
        outputs = (ctypes.c_size_t * len(self.source.pieces.buffers)).in_dll(self.library, "served_outputs")
        places = dict(zip(self.source.pieces.buffers, outputs, strict=True))
        views = {
            node.name: np.frombuffer(net, np.float32, rasters[node.name][0].size, places[node.name])
            for node in self.spec.nodes
            if isinstance(node, Spiking)
        }
        direct = self.spec.coding is Coding.DIRECT
        if direct:
            self.library.served_present(net, _pointer(values[0]))
        for step in range(steps):
            if direct:
                self.library.served_step(net)
            else:
                self.library.served_step(net, _pointer(values[step if len(values) > 1 else 0]))
            for name, view in views.items():
                rasters[name][step] = view.reshape(rasters[name].shape[1:])

    def _state(self, net: Any) -> State:
        saved = ctypes.create_string_buffer(self.layout.size)
        self.library.served_state_save(net, saved)
        return from_bytes(saved.raw, self.network, NO_BUNDLE)


def _pointer(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)
