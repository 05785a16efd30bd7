"""What joins an importer to its contract: a small network for it, and the words by which a user takes that in.

The zoo's networks are those of frameworks, of their author's own code and of NIR files; those of the other ways in are
here. A new importer joins by an entry, and if it reads a file, by how that is written.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import nir as nir_package
import numpy as np
import torch
from torch import Tensor, nn

from spikeserve.training import library
from tests.plugins.frameworks.plain_network import Steps
from tests.plugins.nir.loihi import CUBA, Layer, dense, simulated, write
from tests.zoo import runs
from tests.zoo.networks import NETWORKS
from tests.zoo.registry import Entry
from tests.zoo.weights import lively

FACTORIES = ("snntorch", "spikingjelly", "norse", "sinabs", "torch", "spikeserve")  # whose SOURCE is a function

# An importer that somebody has of his own: a file of weights, one row for each IF neuron.
PLUGIN = """
from spikeserve.models.door import Plugin
class Rows:
    source, compared, checked = "A file of weights.", (), ("input_shape", "time_steps")
    @property
    def options(self):
        from spikeserve.training.importers.options import Options
        return Options
    def convert(self, source, options):
        import numpy as np
        from spikeserve.models.spec import Spec
        from spikeserve.models.spec.network import Network
        from spikeserve.training.errors import InvalidGraph
        from spikeserve.training.importers.options import ImportedNetwork
        try:
            weight = np.loadtxt(source, dtype=np.float32, ndmin=2)
        except ValueError as error:
            raise InvalidGraph(f"'{source}' is no file of weights: {error}") from error
        rows, columns = weight.shape
        nodes = [{"type": "Linear", "name": "rows", "in_features": columns, "out_features": rows, "bias": False}]
        nodes.append({"type": "IF", "name": "fires"})
        task = {"input": {"shape": [columns]}, "coding": "spikes", "time_steps": options.time_steps}
        spec = Spec.read({**task, "nodes": nodes, "labels": options.labels or [str(row) for row in range(rows)]})
        return ImportedNetwork(Network(spec, {"rows.weight": weight}), f"A file of {rows} rows")
    def check(self, source, options):
        print(f"rows: {self.convert(source, options).network.spec.classes}. Can be served.")
        return 0
ROWS = Rows()
PLUGINS = (Plugin("importer", "rows", ":ROWS", "Publish a file of rows", guess=lambda path: path.suffix == ".rows"),)
"""
WEIGHT = (np.random.default_rng(5).integers(-4, 9, (4, 12)) / 8).astype(np.float32)


def rows() -> np.ndarray[Any, Any]:
    return WEIGHT


def rows_layers() -> nn.Module:
    connection = nn.Linear(12, 4, bias=False)
    connection.weight.data = torch.from_numpy(WEIGHT)
    return nn.Sequential(connection, Steps())


def of_this_project() -> nn.Module:
    layers = (nn.Linear(12, 10), library.LIF(10, decay=0.75, recurrent=True), nn.Linear(10, 4), library.IF(4))
    return lively(nn.Sequential(*layers), seed=401)


def without_spikes() -> nn.Module:
    return lively(nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)), seed=408).eval()


def loihi() -> list[Layer]:
    rng = np.random.default_rng(6)
    return [
        dense(rng.integers(-99, 100, (8, 12)), neuron=CUBA, bias=rng.integers(0, 99, 8)),
        dense(rng.integers(-99, 100, (4, 8)), neuron=CUBA, delay=np.arange(4, dtype=np.float32)),
    ]


class Loihi(nn.Module):
    """What Lava computes of the same file."""

    def forward(self, steps: Tensor) -> Tensor:
        samples = [simulated(loihi(), sample.numpy().astype(np.int64))[-1][0] for sample in steps.unbind(1)]
        return torch.from_numpy(np.stack(samples, axis=1)).float()


here = partial(Entry, module=__name__, read=runs.total, run=runs.time_first)
ENTRIES = (
    *NETWORKS,
    here("this-project", "of_this_project", (12,), 20, "spikeserve", names=("linear_0", "lif_1", "linear_2", "if_3")),
    here("lava", "loihi", (12,), 30, "lava", layers="Loihi",
        names=("layer_0_weight", "layer_0", "layer_1_weight", "layer_1_delay", "layer_1")),
    here("a-plugin", "rows", (12,), 10, "rows", layers="rows_layers", names=("rows", "fires"),
        options={"labels": "a,b,c,d"}),
    Entry("converted", "without_spikes", (12,), 64, "convert", __name__, close=0.05,
        options={"labels": "a,b,c", "low": "0", "high": "1"},
        run=runs.image, read=runs.itself, names=("linear_0", "relu_1", "linear_2")),
)  # fmt: skip
# One small network of each importer, which every run of the tests takes in; ./scripts/test-deep has all.
SMALL = {
    *("snntorch-3-feedforward", "snntorch-rate-coded", "spikingjelly-lif-fc-mnist", "norse-intro", "sinabs-quickstart"),
    *("own-rectified", "own-clamped-readout", "nir-from-spikingjelly", "nir-from-snntorch-recurrent"),
    *("this-project", "lava", "a-plugin", "converted"),
}


def written(entry: Entry, folder: Path) -> Path:
    """Return the file that an importer of files takes, and write it."""
    content, path = entry.function(entry.source)(), folder / f"{entry.name}.{entry.framework}"
    if entry.framework == "nir":
        nir_package.write(path, content)
    elif entry.framework == "lava":
        write(path, *content)
    else:
        np.savetxt(path, content)
    return path


def words_of(entry: Entry, folder: Path) -> list[str]:
    """Return the words that take a network in, but for --name and --repository; its file is in the folder."""
    words, flags = ["import", entry.framework], dict(entry.options)
    if entry.framework == "convert":
        words, flags = ["convert"], flags | {"calibration": os.fspath(calibration(folder))}
    elif entry.framework == "rows":
        (folder / "lab").mkdir(exist_ok=True)
        (folder / "lab/rows.py").write_text(PLUGIN)
        words = ["--plugins-dir", os.fspath(folder / "lab"), *words]
    if entry.framework != "convert":
        flags |= {"coding": str(entry.coding)}
    more = {"batch": entry.batch, "answer": entry.answer, "start": entry.start}
    flags |= {"input-shape": ",".join(map(str, entry.shape)), "time-steps": str(entry.time_steps)}
    flags |= {name: str(value) for name, value in more.items() if value is not None}
    of_code = entry.framework in (*FACTORIES, "convert")
    source = f"{entry.module}:{entry.source}" if of_code else os.fspath(written(entry, folder))
    return [*words, source, *(word for name, value in flags.items() for word in (f"--{name}", value))]


def calibration(folder: Path) -> Path:
    """Write the samples that a network without spikes is converted by."""
    x = np.random.default_rng(7).random((90, 12), np.float32)
    with torch.no_grad():
        y = without_spikes()(torch.from_numpy(x)).argmax(1).numpy()
    np.savez(folder / "samples.npz", x=x, y=y)
    return folder / "samples.npz"
