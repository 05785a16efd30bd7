"""NIR files as each framework's exporter writes them, and two in the style of the NIR paper's.

The exporters of Norse and sinabs write theirs. Those of snnTorch 1.0 and SpikingJelly 2.0 need a newer nir package than
sinabs allows, so that their graphs are written out here. `…_layers` is the network that a file came from.
"""

from itertools import pairwise
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import sinabs.layers as sl
import sinabs.nir
import snntorch as snn
import torch
from norse.torch.utils.export_nir import to_nir as norse_to_nir
from spikingjelly.activation_based import neuron
from torch import nn

from tests.zoo.weights import lively

DT = 1e-4  # of both exporters


def snntorch_recurrent_layers() -> nn.Module:
    network = nn.Sequential(
        nn.Linear(12, 10), snn.RSynaptic(0.75, 0.875, linear_features=10, init_hidden=True),
        nn.Linear(10, 4), snn.Leaky(0.75, init_hidden=True, output=True),
    )  # fmt: skip
    return lively(network, seed=111, gain=1.0)


def from_snntorch_recurrent() -> Any:
    """The graph that snnTorch's exporter makes of an RSynaptic: a graph within the graph, with a loop."""
    children: Any = snntorch_recurrent_layers()
    fc1, recurrent, fc2, last = children
    ones = np.ones(10, np.float32)
    synaptic = nir.CubaLIF(
        tau_syn=ones * DT / (1 - recurrent.alpha.numpy()), tau_mem=ones * DT / (1 - recurrent.beta.numpy()),
        r=ones / (1 - recurrent.beta.numpy()), v_leak=0 * ones, v_threshold=ones,
        w_in=ones / (1 - recurrent.alpha.numpy()),
    )  # fmt: skip
    nodes = {"input": nir.Input({"input": np.array([10])}), "lif": synaptic, "w_rec": affine(recurrent.recurrent),
             "output": nir.Output({"output": np.array([10])})}  # fmt: skip
    nested = nir.NIRGraph(nodes, [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")])
    return chain(12, 4, {"0": affine(fc1), "1": nested, "2": affine(fc2), "3": leaky(last, 4)})


def affine(connection: Any) -> Any:
    return nir.Affine(connection.weight.detach().numpy(), connection.bias.detach().numpy())


def leaky(neurons: Any, size: int) -> Any:
    ones, rest = np.ones(size, np.float32), 1 - neurons.beta.detach().numpy()
    return nir.LIF(tau=ones * DT / rest, r=ones / rest, v_leak=0 * ones, v_threshold=ones)


def chain(into: int, out: int, nodes: dict[str, Any]) -> Any:
    whole = {
        "input": nir.Input({"input": np.array([into])}),
        **nodes,
        "output": nir.Output({"output": np.array([out])}),
    }
    return nir.NIRGraph(whole, list(pairwise(whole)))


def norse_layers() -> nn.Module:
    network = norse.SequentialState(nn.Linear(12, 10), norse.LIFBoxCell(), nn.Linear(10, 4), norse.LIBoxCell())
    return lively(network, seed=112, gain=16.0)


def from_norse() -> Any:
    return norse_to_nir(norse_layers(), torch.ones(1, 12))


def sinabs_layers() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), sl.IAFSqueeze(batch_size=4, min_v_mem=-1.0), sl.SumPool2d(2),
        nn.Conv2d(4, 4, 3), sl.IAFSqueeze(batch_size=4, min_v_mem=-1.0),
    )  # fmt: skip
    return lively(network, seed=113)


def from_sinabs() -> Any:
    graph = sinabs.nir.to_nir(sinabs_layers(), torch.ones(4, 1, 6, 6))
    graph.nodes["0"].input_shape, graph.nodes["3"].input_shape = (6, 6), (3, 3)  # left out, and nir writes no None
    return graph


def spikingjelly_layers() -> nn.Module:
    network = nn.Sequential(nn.Linear(12, 10), neuron.LIFNode(tau=2.0, v_reset=0.0),
                            nn.Linear(10, 4), neuron.IFNode(v_reset=0.0))  # fmt: skip
    return lively(network, seed=114)


def from_spikingjelly() -> Any:
    """The graph that SpikingJelly's exporter makes, for a dt of 0.1 ms: an LIF's tau in seconds, an IF's r 1 / dt."""
    children: Any = spikingjelly_layers()
    fc1, _, fc2, _ = children
    ten, four = np.ones(10, np.float32), np.ones(4, np.float32)
    lif = nir.LIF(tau=2 * DT * ten, r=ten, v_leak=0 * ten, v_threshold=ten)
    return chain(12, 4, {"0": affine(fc1), "1": lif, "2": affine(fc2), "3": nir.IF(four / DT, four)})


def paper_cnn() -> Any:
    """Convolutions, integrate-and-fire neurons and sum pools, as the paper's 02_cnn."""
    random = np.random.default_rng(115)

    def convolution(into: int, out: int, size: int, side: int) -> Any:
        weight = random.normal(0, 2 / np.sqrt(into * size**2), (out, into, size, size)).astype(np.float32)
        return nir.Conv2d((side, side), weight, 1, 1 if size == 3 else 0, 1, 1, np.zeros(out, np.float32))

    def fires(*shape: int) -> Any:
        return nir.IF(np.ones(shape, np.float32), np.ones(shape, np.float32))

    pool = {"kernel_size": np.array([2, 2]), "stride": np.array([2, 2]), "padding": np.array([0, 0])}
    nodes = {
        "input": nir.Input({"input": np.array([2, 12, 12])}),
        "0": convolution(2, 4, 3, 12), "1": fires(4, 12, 12), "2": nir.SumPool2d(**pool),
        "3": convolution(4, 6, 3, 6), "4": fires(6, 6, 6), "5": nir.SumPool2d(**pool),
        "6": nir.Flatten({"input": np.array([6, 3, 3])}, 0, -1),
        "7": nir.Affine(random.normal(0, 0.3, (10, 54)).astype(np.float32), np.zeros(10, np.float32)), "8": fires(10),
        "output": nir.Output({"output": np.array([10])}),
    }  # fmt: skip
    return nir.NIRGraph(nodes, list(pairwise(nodes)))
