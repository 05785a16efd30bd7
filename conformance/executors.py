"""Executors of the cases: this project's engines and its C, and the frameworks, each by its own reader of NIR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conformance.case import DT, Case, Raster, inputs_of
from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines import Record, RunResult, create
from spikeserve.models.spec.network import Network
from spikeserve.plugins.c.compiled import CompiledC


def _ours(folder: Path, run: Callable[[Network, DenseInputs], RunResult]) -> Mapping[str, Raster]:
    inputs = inputs_of(folder)[:, np.newaxis]
    result = run(Bundle.read(folder / "bundle").network, DenseInputs(inputs, len(inputs)))
    return {name: raster.reshape(len(inputs), -1) for name, raster in result.rasters.items()}


def _engine(name: str) -> Callable[[Network, DenseInputs], RunResult]:
    return lambda network, inputs: create(name, network).run(inputs, record=Record.RASTER)[0]


def reference(folder: Path) -> Mapping[str, Raster]:
    """Run the reference engine."""
    return _ours(folder, _engine("reference"))


def event(folder: Path) -> Mapping[str, Raster]:
    """Run the event engine."""
    return _ours(folder, _engine("event"))


def onnx(folder: Path) -> Mapping[str, Raster]:
    """Run the onnx engine."""
    return _ours(folder, _engine("onnx"))


def torch_engine(folder: Path) -> Mapping[str, Raster]:
    """Run the torch engine."""
    return _ours(folder, _engine("torch"))


def c(folder: Path) -> Mapping[str, Raster]:
    """Compile the C file, and run it."""
    return _ours(folder, lambda network, inputs: CompiledC(network).run(inputs))


def _graph(folder: Path, step: float = DT) -> Any:
    """Read the graph of a case, for a reader to whom a step is so many seconds: times are scaled to it."""
    import nir

    if why := Case.read(folder).nir:
        raise ValueError(f"no NIR: {why}")

    def scale(graph: Any) -> None:
        for node in graph.nodes.values():
            if hasattr(node, "nodes"):
                scale(node)
            for name in ("tau", "tau_mem", "tau_syn", "delay"):
                if hasattr(node, name):
                    setattr(node, name, np.asarray(getattr(node, name)) * (step / DT))

    scale(graph := nir.read(folder / "graph.nir"))
    return graph


def _watched(
    network: nn.Module, run: Callable[[Tensor], object], folder: Path, inputs: Sequence[Raster] = ()
) -> Mapping[str, Raster]:
    """Run a module on a case's inputs, or others, and give the outputs of the layers that it names, one for each call.

    Without others, a call gets one step, (1, *shape).
    """
    case, found = Case.read(folder), dict[str, list[Any]]()

    def watch(name: str) -> Callable[..., None]:
        return lambda _, __, output: found.setdefault(name, []).append(
            (output[0] if isinstance(output, tuple) else output).detach().numpy()[0]
        )

    for name, module in network.named_modules():
        if name.rpartition(".")[2] in case.layers:
            module.register_forward_hook(watch(name.rpartition(".")[2]))
    with torch.no_grad():
        for given in inputs or inputs_of(folder)[:, np.newaxis]:
            run(torch.from_numpy(given))
    return {name: np.stack(steps) for name, steps in found.items()}


def snntorch(folder: Path) -> Mapping[str, Raster]:
    """Read the graph by snnTorch, and run it."""
    from snntorch.import_nir import import_from_nir

    network = import_from_nir(_graph(folder))
    state: list[Any] = [None]

    def run(x: Tensor) -> None:
        _, state[0] = network(x, state[0])

    return _watched(network, run, folder)


def norse(folder: Path) -> Mapping[str, Raster]:
    """Read the graph by Norse, and run it."""
    import norse.torch

    network = norse.torch.from_nir(_graph(folder), dt=DT)
    state: list[Any] = [None]

    def run(x: Tensor) -> None:
        _, state[0] = network(x, state[0])

    return _watched(network, run, folder)


def sinabs(folder: Path) -> Mapping[str, Raster]:
    """Read the graph by sinabs, and run it."""
    import sinabs.nir

    network = sinabs.nir.from_nir(_graph(folder, 1.0), batch_size=1)
    return _watched(network, lambda x: network(x), folder)


def spikingjelly(folder: Path) -> Mapping[str, Raster]:
    """Read the graph by SpikingJelly, and run it."""
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    network = import_from_nir(_graph(folder))
    return _watched(network, lambda x: network(x), folder)


def rockpool(folder: Path) -> Mapping[str, Raster]:
    """Read the graph by Rockpool, whose modules take all steps at once, and run it."""
    from rockpool.nn.modules.torch.nir import from_nir

    network, inputs = from_nir(_graph(folder)), inputs_of(folder)[np.newaxis]
    return {name: raster[0] for name, raster in _watched(network, network, folder, [inputs]).items()}


def spyx(folder: Path) -> Mapping[str, Raster]:
    """Read the graph by Spyx, and run it up to each of its layers of neurons: a run gives those of the last."""
    import jax.numpy as jnp
    from spyx.nir import from_nir
    from spyx.nn import Sequential, run

    inputs = inputs_of(folder)[:, np.newaxis]
    given = jnp.asarray(inputs if inputs.ndim == 3 else np.moveaxis(inputs, 2, -1))  # its channels are last
    layers = from_nir(_graph(folder), given, dt=DT)[0].layers
    ends = [place + 1 for place, layer in enumerate(layers) if hasattr(layer, "initial_state")]
    rasters = (np.asarray(run(Sequential(*layers[:end]), given)[0]) for end in ends)
    return {
        name: raster if raster.ndim == 3 else np.moveaxis(raster, -1, 2)
        for name, raster in zip(Case.read(folder).layers, rasters, strict=True)
    }
