"""The `torch` engine: the modules that training fits, with the plain threshold and no autograd graph, on CPU or CUDA.

Sums run in the order that PyTorch's matrix product picks for a batch's size, so that on a trained network a membrane
within rounding of its threshold may fall otherwise in another batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.coding import EncodedInputs
from models.engines.base import Record, RunResult, State, from_rest_only, membrane_readout
from models.engines.fan_out import fan_out, recurrent_fan_out
from models.engines.torch.network import HardThreshold, SpikingNetwork
from models.errors import EngineUnavailable
from models.spec import Readout, Spec
from models.spec.network import Network
from models.spec.nodes import Spiking, Weighted


class TorchEngine:
    """Runs a network in PyTorch; `device` is "cpu", "cuda" or "cuda:<index>"."""

    name = "torch"

    def __init__(self, network: Network, device: str = "cpu") -> None:
        self.device = usable_device(device)
        if self.device.type == "cuda":
            # cuDNN may drop bits of a convolution's inputs (TensorFloat-32) or take a way that rounds by itself
            # (Winograd). PyTorch's own kernels sum plain products, and a spike for a spike needs that.
            torch.backends.cudnn.enabled = False
        self.module = SpikingNetwork.of(network).to(self.device).eval().requires_grad_(False)
        self.spec: Spec = network.spec
        self.fan_out = {
            node.name: torch.from_numpy(fan_out(node, self.spec.input_shapes[node.name])).to(self.device)
            for node in self.spec.nodes
            if isinstance(node, Weighted)
        }

    @torch.inference_mode()
    def run(
        self, inputs: EncodedInputs, state: State | None = None, *, record: Record = Record.NONE
    ) -> tuple[RunResult, State]:
        """Run every sample from rest."""
        from_rest_only(state, self.name)
        steps = torch.from_numpy(inputs.steps).to(self.device)
        operations = torch.zeros(inputs.batch, dtype=torch.int64, device=self.device)
        per_node: dict[str, Tensor] = {}
        rasters: dict[str, Tensor] = {}
        membranes: dict[str, Tensor] = {}
        for node, arriving, leaving, trace in self.module(steps, inputs.time_steps, HardThreshold()):
            if isinstance(node, Weighted):
                operations += ((arriving != 0) * self.fan_out[node.name]).flatten(2).sum(dim=(0, 2))
            if isinstance(node, Spiking):
                per_node[node.name] = leaving.flatten(2).sum(dim=2, dtype=torch.int64).sum(dim=0)
                if node.recurrent:
                    fed_back = (leaving[:-1] != 0).flatten(2).sum(dim=(0, 2))
                    operations += fed_back * recurrent_fan_out(leaving.shape[2:])
                if Record.RASTER in record:
                    rasters[node.name] = leaving
            if trace and Record.MEMBRANE in record:
                membranes[node.name] = torch.stack(trace)
        return self._result(leaving, operations, per_node, rasters, membranes), State(inputs.time_steps, {})

    def _result(
        self,
        last: Tensor,
        operations: Tensor,
        per_node: dict[str, Tensor],
        rasters: dict[str, Tensor],
        membranes: dict[str, Tensor],
    ) -> RunResult:
        if self.spec.readout is Readout.SPIKE_COUNT:
            counts = last.sum(dim=0, dtype=torch.int64).cpu().numpy()
            readout = counts.astype(np.float32)
        else:
            readout = membrane_readout(self.spec.readout, last.cpu().numpy())
            counts = np.zeros(readout.shape, np.int64)
        return RunResult(
            spike_counts=counts,
            readout=readout,
            synaptic_operations=operations.cpu().numpy(),
            spikes_per_node={name: spikes.cpu().numpy() for name, spikes in per_node.items()},
            rasters={name: raster.to(torch.int32).cpu().numpy() for name, raster in rasters.items()},
            membranes={name: membrane.cpu().numpy() for name, membrane in membranes.items()},
        )


def usable_device(device: str) -> torch.device:
    """Return a device by name; raises EngineUnavailable for one that is not there, with what to do about it."""
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EngineUnavailable(f"device '{device}': is not one, expected 'cpu', 'cuda' or 'cuda:<index>'") from error
    found = torch.cuda.device_count()
    if chosen.type == "cuda" and (chosen.index or 0) >= found:
        raise EngineUnavailable(
            f"device '{device}': PyTorch {torch.__version__} finds {f'{found} of it' if found else 'no CUDA'} here; "
            "install a CUDA build of it and a driver, or use 'cpu'"
        )
    return chosen
