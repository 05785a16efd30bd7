"""What can run a network, each behind one adapter: the engines, exported files, and the network that is trained."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch

from spikeserve.models.coding import DenseInputs, EventInputs
from spikeserve.models.engines import ENGINES, RunResult, create
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import longest_delay
from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.spec import Coding, nodes
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.rules import Charge, Fire, Synapse
from spikeserve.plugins.c.compiled import CompiledC
from spikeserve.plugins.c.wasm import compiled as wasm_of
from spikeserve.plugins.nir.convert import convert_file
from spikeserve.plugins.nir.dialects import GivenRules
from spikeserve.plugins.nir.export import to_graph
from spikeserve.plugins.nir.file import write
from spikeserve.plugins.onnx.engine import open_session
from spikeserve.plugins.onnx.graph import build
from spikeserve.training.config import NetworkConfig
from spikeserve.training.fit.architecture import Architecture, NodeTraining, build_architecture
from spikeserve.training.fit.layers import Connection, Delays, Neurons
from spikeserve.training.fit.losses import class_scores
from spikeserve.training.fit.network import TrainingNetwork
from spikeserve.training.fit.operators import dense
from spikeserve.training.importers.options import Options
from tests.nir_graphs import read_here
from tests.same import EVERYTHING

Run = Callable[[DenseInputs], RunResult]
QUICK = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror")


class Target(Protocol):
    """A way to run networks."""

    def refuses(self, network: Network) -> str:
        """Return a part of the sentence by which it refuses a network that it cannot hold; "" where it can."""
        ...

    def ways(self, network: Network) -> Sequence[Run]:
        """Return its ways to run a network from rest: in one go, or cut, with the state carried."""
        ...


class OfEngine:
    """An engine, which also takes events and goes on from a state."""

    def __init__(self, name: str) -> None:
        self.name = name

    def refuses(self, _: Network) -> str:
        return ""

    def ways(self, network: Network) -> Sequence[Run]:
        engine = create(self.name, network)

        def cut(inputs: DenseInputs) -> RunResult:
            first, state = engine.run(inputs.between(0, 1), record=EVERYTHING)
            if inputs.time_steps == 1:
                return first
            last, _ = engine.run(inputs.between(1, inputs.time_steps), state, record=EVERYTHING)
            return joined_in_time([first, last])

        def as_events(inputs: DenseInputs) -> RunResult:
            return engine.run(inputs if inputs.constant else EventInputs.of(inputs), record=EVERYTHING)[0]

        return (lambda inputs: engine.run(inputs, record=EVERYTHING)[0], as_events, cut)


def joined_in_time(parts: Sequence[RunResult]) -> RunResult:
    """Return the answer of the last part of a run, with what all parts recorded."""

    def over_time(kind: str) -> dict[str, Any]:
        return {name: np.concatenate([getattr(part, kind)[name] for part in parts]) for name in getattr(parts[0], kind)}

    return replace(parts[-1], rasters=over_time("rasters"), membranes=over_time("membranes"))


class MovedC(CompiledC):
    """The C file, of which each step goes on from a copy of the state, while the old one is overwritten."""

    def _main(self) -> str:
        moved = "served_net from = net; memset(&net, 255, sizeof net); net = from;"
        loop = "for (step = 0; step < head[1]; step++) {"
        return "#include <string.h>\n" + super()._main().replace(loop, f"{loop} {moved}")


class OfC:
    """The C file, compiled here."""

    def __init__(self, *flags: str) -> None:
        self.flags = flags

    def refuses(self, _: Network) -> str:
        return ""

    def ways(self, network: Network) -> Sequence[Run]:
        if shutil.which("cc") is None:
            pytest.skip("there is no C compiler: apt-get install gcc")
        return [MovedC(network, flags=self.flags).run]


class OfWasm:
    """The WebAssembly module, run by Node.js, which reads the answer after its last step."""

    def refuses(self, _: Network) -> str:
        return ""

    def ways(self, network: Network) -> Sequence[Run]:
        for program in ("clang", "wasm-ld", "node"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not installed: ./scripts/install-tools")
        module, direct, classes = wasm_of(network, "served"), network.spec.coding is Coding.DIRECT, network.spec.classes

        def run(inputs: DenseInputs) -> RunResult:
            values = np.ascontiguousarray(np.swapaxes(inputs.steps, 0, 1), np.float32)  # sample by sample
            head = np.array([inputs.batch, inputs.time_steps, len(inputs.steps), direct, classes], np.int32)
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "served.wasm").write_bytes(module)
                command = ["node", "-e", BY_NODE, folder]
                content = head.tobytes() + values.tobytes()
                done = subprocess.run(command, input=content, capture_output=True, check=True)
            answers = np.frombuffer(done.stdout, np.dtype([("n", "<i8", (classes,)), ("read", "<f4", (classes,))]))
            return RunResult(answers["n"], answers["read"], np.zeros(inputs.batch, np.int64), {})

        return [run]


BY_NODE = """
const fs = require("fs"), folder = process.argv[1], bytes = fs.readFileSync(0);
const content = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
const [batch, steps, given, direct, classes] = new Int32Array(content, 0, 5), values = new Float32Array(content, 20);
const {exports: net} = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(folder + "/served.wasm")));
const size = batch ? values.length / batch / given : 0;
const place = () => new Float32Array(net.memory.buffer, net.values(), size);
const fill = (at) => place().set(values.subarray(at * size, (at + 1) * size));
const out = [];
for (let sample = 0; sample < batch; sample++) {
  if (direct) fill(sample);
  if (net.begin()) throw new Error("begin");
  for (let step = 0; step < steps; step++) {
    if (!direct) fill(sample * given + step);
    if (net.step()) throw new Error("step");
  }
  const counts = net.counts(), read = net.readout();
  out.push(Buffer.from(net.memory.buffer.slice(counts, counts + 8 * classes)));
  out.push(Buffer.from(net.memory.buffer.slice(read, read + 4 * classes)));
}
process.stdout.write(Buffer.concat(out));
"""


class OfOnnx:
    """The exported ONNX model by itself, run by ONNX Runtime without the rewrite that rounds otherwise."""

    def refuses(self, _: Network) -> str:
        return ""

    def ways(self, network: Network) -> Sequence[Run]:
        model = open_session(build(network).SerializeToString(), 1)
        names = ["spike_counts", "readout", "synaptic_operations", *(f"{name}.raster" for name in network.spec.layers)]

        def run(inputs: DenseInputs) -> RunResult:
            feed: dict[str, Any] = {"inputs": inputs.steps}
            if network.spec.coding is Coding.DIRECT:
                feed = {"inputs": inputs.steps[0], "time_steps": np.array(inputs.time_steps)}
            counts, readout, operations, *rasters = model.run(names, feed)
            spikes = {name: raster.astype(np.int32) for name, raster in zip(network.spec.layers, rasters, strict=True)}
            return RunResult(counts, readout, operations, {}, spikes)

        return [run]


class OfNir:
    """The exported NIR file, read back, and run by the reference."""

    CHARGES = (Charge.TRUNCATED, Charge.QUADRATIC, Charge.EXPONENTIAL, Charge.EXPONENTIAL_INPUT_FIRST, Charge.FILTER)
    HAS = ("Linear", "Conv1d", "Conv2d", "SumPool2d", "AvgPool2d", "Flatten", "Scale", "Delay", "Threshold")

    def refuses(self, network: Network) -> str:
        several = any(getattr(node, "fire", None) is Fire.MULTIPLE for node in network.spec.nodes)
        return next(filter(None, (self._lacks(node, by_exponential=several) for node in network.spec.nodes)), "")

    def _lacks(self, node: Any, *, by_exponential: bool) -> str:
        where, kind = f"node '{node.name}': ", node.type
        match node:
            case _ if node.type not in (*self.HAS, "IF", "I", "LIF", "LI", "CubaLIF", "CubaLI"):
                return f"{where}NIR has no node for {kind}"
            case nodes.SumPool2d() | nodes.AvgPool2d() if node.overhang or getattr(node, "uneven", False):
                return f"{where}NIR's pools have no windows that cover fewer values at an edge"
            case nodes.Scale() if node.by_step or node.offset != 0:
                return f"{where}NIR's Scale has no offset, and no parameters for each step"
            case nodes.Delay(taps=(_, *_)):
                return f"{where}NIR's Delay has one delay for each element, and no taps"
            case nodes.IF() | nodes.I() if node.drive:
                return f"{where}drive is not 0, which NIR's IF and I have no parameter for"
            case nodes.Leaky() if node.charge in self.CHARGES:
                return f"{where}charge is '{node.charge}', which NIR's {kind} does not do"
            case nodes.Leaky() if node.decay == 0 and by_exponential:
                return f"{where}its membrane keeps all or nothing of what it holds, which NIR's {kind} has no"
            case nodes.CubaLIF() | nodes.CubaLI() if node.synapse is Synapse.LATE_JUMP:
                return f"{where}synapse is 'late_jump', which NIR's {kind} does not do"
        return ""

    def ways(self, network: Network) -> Sequence[Run]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "exported.nir")
            write(path, to_graph(network, 2.0**-13))
            file = read_here(path)
        back = convert_file(file, GivenRules.of(file.graph.metadata).complete(), Options()).network
        assert back.spec == network.spec
        assert {name: values.tobytes() for name, values in back.tensors.items()} == {
            name: values.tobytes() for name, values in network.tensors.items()
        }
        return [lambda inputs: ReferenceEngine(back).run(inputs, record=EVERYTHING)[0]]


class OfTraining:
    """The network that is trained, with these weights, a hard threshold and no gradient."""

    def refuses(self, network: Network) -> str:
        lacking = [node for node in network.spec.nodes if self._lacks(node)]
        return f"architecture: '{lacking[0].type}' is not a layer" if lacking else ""

    def _lacks(self, node: Any) -> bool:
        joins = isinstance(node, nodes.Multiply | nodes.Concatenate | nodes.MatMul)
        return joins or node.by_step or (node.inputs is not None and len(node.inputs) > 1)

    def ways(self, network: Network) -> Sequence[Run]:
        spec = network.spec
        for node in spec.nodes:
            if self._lacks(node):  # the text of an architecture has no word for it
                build_architecture(NetworkConfig(architecture=node.type), spec.input, spec.labels, spec.time_steps)
        longest = {node.name: longest_delay(network, node) for node in spec.nodes if isinstance(node, nodes.Delay)}
        module = TrainingNetwork(
            Architecture(spec, {name: NodeTraining(longest_delay=steps) for name, steps in longest.items()})
        ).eval()
        for node, layer in zip(spec.nodes, module.layers, strict=True):
            own = {
                name.removeprefix(f"{node.name}."): torch.from_numpy(values.copy())
                for name, values in network.tensors.items()
                if name.startswith(f"{node.name}.")
            }
            fill(node, layer, own, network)

        def run(inputs: DenseInputs) -> RunResult:
            with torch.no_grad():
                steps = torch.from_numpy(inputs.steps)
                activity = module(steps, inputs.time_steps, HardThreshold())
            rasters = {
                name: dense(raster)
                .numpy()
                .astype(np.int32)
                .reshape(inputs.time_steps, inputs.batch, *spec.output_shapes[name])
                for name, raster in activity.rasters.items()
            }
            counts = rasters.get(spec.readout_node.name, np.zeros((1, inputs.batch, spec.classes), np.int64))
            answer = class_scores(activity.output, spec.readout).numpy()
            return RunResult(
                counts.sum(0).reshape(inputs.batch, spec.classes), answer, np.zeros(inputs.batch, np.int64), {}, rasters
            )

        return [run]


@torch.no_grad()
def fill(node: Any, layer: Any, own: dict[str, Any], network: Network) -> None:
    """Set what a layer of the network that is trained holds."""
    if isinstance(layer, Neurons):
        for name in layer.names:
            layer.set_parameter(name, own.pop(name, torch.from_numpy(np.array(network.parameter(node, name)))))
        if layer.recurrent is not None:
            layer.recurrent.load_state_dict({name.removeprefix("recurrent."): each for name, each in own.items()})
    elif isinstance(layer, Delays):
        if not node.shared:
            layer.delay.copy_(own["delay"])
    else:
        (layer.connection if isinstance(layer, Connection) else layer).load_state_dict(own)


JOINED: dict[str, Target] = {
    **{name: OfEngine(name) for name in ENGINES},
    "c": OfC(*QUICK),
    "sanitized c": OfC(*QUICK, "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
    "wasm": OfWasm(),
    "onnx file": OfOnnx(),
}
ALONE: dict[str, Target] = {"nir": OfNir(), "training": OfTraining()}  # whose networks join nothing
