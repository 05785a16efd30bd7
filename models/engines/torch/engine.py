"""The `torch` engine: the modules of training, with the plain threshold and without autograd, on the CPU or CUDA.

PyTorch's matrix product chooses the order of sums by the batch size. So a sum that float32 cannot hold exactly is
computed in float64, and rounded once; see `models.spec.sums`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.base import Record, RunResult
from spikeserve.models.engines.blocks import DenseEngine
from spikeserve.models.engines.fan_out import fan_out, recurrent_fan_out
from spikeserve.models.engines.readout import check_spikes, read_out
from spikeserve.models.engines.state import READ, State, neuron_arrays, neuron_state, steps_since_rest
from spikeserve.models.engines.stop import Stop, check
from spikeserve.models.engines.torch.network import Carried, SpikingNetwork
from spikeserve.models.engines.torch.operations import HardThreshold
from spikeserve.models.errors import EngineUnavailable
from spikeserve.models.spec import Readout
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.nodes import Delay, Neuron, Node, Spiking, Weighted
from spikeserve.models.spec.program import SPIKES


class TorchEngine(DenseEngine):
    """Runs a network in PyTorch; `device` is "cpu", "cuda" or "cuda:<index>"."""

    name = "torch"

    def __init__(self, network: Network, device: str = "cpu") -> None:
        super().__init__(network)
        self.device = usable_device(device)
        if self.device.type == "cuda":
            # cuDNN may drop bits of a convolution's inputs (TensorFloat-32) or use an algorithm with other rounding
            # (Winograd). PyTorch's own kernels sum plain products, which spike-for-spike parity needs.
            torch.backends.cudnn.enabled = False
        self.module = SpikingNetwork.of(network).to(self.device).eval().requires_grad_(False)
        self.fan_out = {
            node.name: torch.from_numpy(fan_out(node, self.spec.input_shapes[node.name], network)).to(self.device)
            for node in self.spec.nodes
            if isinstance(node, Weighted)
        }

    @override
    @torch.inference_mode()
    def run_dense(
        self, inputs: DenseInputs, state: State | None, record: Record, stop: Stop | None
    ) -> tuple[RunResult, State]:
        steps = torch.from_numpy(inputs.steps).to(self.device)
        operations = torch.zeros(inputs.batch, dtype=torch.int64, device=self.device)
        per_node: dict[str, Tensor] = {}
        rasters: dict[str, Tensor] = {}
        membranes: dict[str, Tensor] = {}
        before = None if state is None else self._carried(state)
        after: dict[str, NDArray[Any]] = {}
        begun = None if state is None else torch.tensor(state.steps, device=self.device)
        activities = self.module(steps, inputs.time_steps, HardThreshold(), before, begun)
        for node, arriving, leaving, trace, carried in activities:
            check(stop)
            if isinstance(node, Weighted):
                operations += ((arriving != 0) * self.fan_out[node.name]).flatten(2).sum(dim=(0, 2))
            if isinstance(node, Spiking):
                if node.several and leaving.numel():
                    check_spikes(node.name, float(leaving.max()))
                per_node[node.name] = leaving.flatten(2).sum(dim=2, dtype=torch.int64).sum(dim=0)
                if node.recurrent:
                    earlier = [] if before is None else [before[node.name][SPIKES][None]]
                    heard = (torch.cat([*earlier, leaving[:-1]]) != 0).flatten(2).sum(dim=(0, 2))
                    operations += heard * recurrent_fan_out(leaving.shape[2:])
                if Record.RASTER in record:
                    rasters[node.name] = leaving
            if trace and Record.MEMBRANE in record:
                membranes[node.name] = torch.stack(trace)
            if node is self.spec.readout_node:
                counts = leaving.sum(dim=0, dtype=torch.int64).cpu().numpy() if isinstance(node, Spiking) else None
                membrane = torch.stack(trace) if self.spec.readout.of_membrane else None
            after |= _arrays(node, carried)
        values = None
        if self.spec.readout is not Readout.SPIKE_COUNT:
            values = (leaving if membrane is None else membrane).cpu().numpy()
        answer = read_out(self.spec.readout, counts, values, inputs.time_steps, state)
        result = RunResult(
            spike_counts=answer.spike_counts,
            readout=answer.readout,
            synaptic_operations=operations.cpu().numpy(),
            spikes_per_node={name: spikes.cpu().numpy() for name, spikes in per_node.items()},
            rasters={name: raster.to(torch.int32).cpu().numpy() for name, raster in rasters.items()},
            membranes={name: membrane.cpu().numpy() for name, membrane in membranes.items()},
        )
        taken = steps_since_rest(state, inputs.batch, inputs.time_steps)
        return result, State(taken, after | answer.carried)

    def _carried(self, state: State) -> dict[str, Any]:
        """Return each node's state, on the device."""
        on_device = {
            name: torch.tensor(array, device=self.device) for name, array in state.arrays.items() if name not in READ
        }
        carried: dict[str, Any] = {}
        for node in self.spec.nodes:
            if isinstance(node, Neuron):
                carried[node.name] = neuron_state(on_device, node)
            elif isinstance(node, Delay):
                carried[node.name] = on_device[f"{node.name}.line"].transpose(0, 1)
        return carried


def _arrays(node: Node, carried: Carried | None) -> dict[str, NDArray[Any]]:
    """Return a node's state as NumPy arrays, none of which is a view that keeps a whole run in memory."""
    if isinstance(node, Neuron) and isinstance(carried, Mapping):
        return {name: tensor.cpu().numpy().copy() for name, tensor in neuron_arrays(node, carried).items()}
    return {f"{node.name}.line": carried.transpose(0, 1).cpu().numpy().copy()} if isinstance(carried, Tensor) else {}


def usable_device(device: str) -> torch.device:
    """Return a device by name; raises EngineUnavailable, with advice, for one that is missing."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EngineUnavailable(f"device '{device}': is not one, expected 'cpu', 'cuda' or 'cuda:<index>'") from error
    count = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= count:
        raise EngineUnavailable(
            f"device '{device}': PyTorch {torch.__version__} finds {f'{count} of it' if count else 'no CUDA'} here; "
            "install a CUDA build of it and a driver, or use 'cpu'"
        )
    return chosen
