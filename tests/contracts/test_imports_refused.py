"""What every importer promises of what it cannot take: one sentence that names what and where, and nothing written.

Each file that a command for networks of elsewhere reads is cut anywhere, lies about its sizes, holds a pickle that
calls, lists in lists, numbers that are too large, or is none: a pipe, a folder, a terabyte. A named pipe stands for
all files that are none: who opens it waits for ever.
"""

import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.plugins.nir import reader
from tests.contracts.importers import PLUGIN, calibration
from tests.contracts.test_importers import fresh_door
from tests.nir_graphs import lif, stack
from tests.plugins.nir.loihi import dense, write
from tests.training.command_line import training_here

NETWORKS = """
import sys
import torch
from torch import nn
IMPORTS = 3
def leaves():
    sys.exit(0)
def older():
    import spikingjelly.clock_driven
def holds_itself():
    network = linear()
    network.add_module("itself", network)
    return network
linear = lambda: nn.Sequential(nn.Linear(4, 3))
wide = lambda: nn.Linear(12, 3)
misspelt = lambda: nn.Linear(2)
other_backend = lambda: nn.Linear(1, 1, backend="cupy")
empty = lambda: nn.Sequential()
lazy = lambda: nn.Sequential(nn.LazyLinear(3))
without_values = lambda: linear().to("meta")
activated = lambda: nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 3, bias=False), nn.Tanh())
scripted = lambda: torch.jit.script(nn.Linear(2, 2))
traced_within = lambda: nn.Sequential(nn.Identity(), torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)))
quantised = lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)))
clipped = lambda: nn.Sequential(nn.Linear(12, 3), nn.Hardtanh(), nn.Linear(3, 3))
class Noise(nn.Module):
    def forward(self, weight):
        return weight + torch.randn_like(weight)
def noisy():
    network = nn.Sequential(nn.Linear(2, 2))
    nn.utils.parametrize.register_parametrization(network[0], "weight", Noise(), unsafe=True)
    return network
class Gated(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)
class Rest(nn.Module):
    def reset(self, sample):
        return sample
    def forward(self, x):
        return x
class Leaves(nn.Module):
    def forward(self, x):
        sys.exit(0)
class Mute(Exception):
    def __str__(self):
        raise RuntimeError
class Fails(nn.Module):
    def forward(self, x):
        raise Mute
"""
EVENTS = {"step_us": 5, "sensor": [4], "polarity": "merged"}
INTO = ("--repository", "models", "--name", "mine")
TORCH = ("import", "torch", "strange:linear", "--input-shape", "4", "--time-steps", "2")
RANGE = ("--input-shape", "12", "--low", "0", "--high", "1")
CONVERT = ("convert", "strange:wide", *RANGE, "--calibration")
RULES = ("--dialect", "nir", "--dt", "1e-4", "--reset", "zero")
# Each file that an importer reads, and the words that read it, where FILE is its name.
WORDS: dict[str, tuple[str, ...]] = {
    "graph.nir": ("import", "nir", "FILE", *RULES),
    "loihi.net": ("import", "lava", "FILE"),
    "weights.pt": (*TORCH, "--state-dict", "FILE"),
    "weights.safetensors": (*TORCH, "--state-dict", "FILE"),
    "keys.json": (*TORCH, "--state-dict", "weights.pt", "--rename", "FILE"),
    "low.npy": (*TORCH, "--low", "@FILE"),
    "low.json": (*TORCH, "--low", "@FILE"),
    "events.json": (*TORCH, "--events", "@FILE"),
    "net.onnx": ("convert", "FILE", *RANGE, "--calibration", "samples.npz"),
    "samples.npz": (*CONVERT, "FILE"),
}  # fmt: skip


class Calls:
    """An object whose pickle makes a folder when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("called",)


def in_memory(save: Callable[..., Any], *values: Any, **named: Any) -> bytes:
    stream = BytesIO()
    save(*((values[0], stream) if save is torch.save else (stream, *values)), **named)
    return stream.getvalue()


def onnx_of(weight: Any, *nodes: Any) -> bytes:
    """Return a model of one product, or of these nodes, whose constant is `w`."""
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", None]) for name in ("x", "y")]
    nodes = nodes or (helper.make_node("MatMul", ["x", "w"], ["y"], name="only"),)
    return helper.make_model(helper.make_graph([*nodes], "g", ends[:1], ends[1:], [weight])).SerializeToString()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of whole files, one for each of WORDS, and of others."""
    folder = tmp_path_factory.mktemp("files")
    weights = {"0.weight": torch.ones(3, 4), "0.bias": torch.zeros(3)}
    nir.write(folder / "graph.nir", stack((2,), (2,), fc=nir.Linear(np.ones((2, 2), np.float32)), lif=lif(2)))
    rows = {"loop": lif(2, tau=np.array([0.001, 0.002])), "negative": lif(2, threshold=-1.0), "unknown": lif(2)}
    for name, node in rows.items():
        made = stack((2,), (2,), lif=node)
        if name == "loop":
            made.nodes["w_rec"] = nir.Linear(np.eye(2))
            made.edges += [("lif", "w_rec"), ("w_rec", "lif")]
        nir.write(folder / f"{name}.nir", made)
    with h5py.File(folder / "unknown.nir", "a") as file:
        replace(file, "node/nodes/lif/type", "Izhikevich")
    nodes = [
        helper.make_node(kind, inputs, [name], name=name)
        for kind, inputs, name in (
            *(("MatMul", ["x", "w"], "first"), ("Erf", ["first"], "gate")),
            ("MatMul", ["gate", "first"], "attention"),
        )
    ]
    (folder / "attention.onnx").write_bytes(onnx_of(numpy_helper.from_array(np.eye(12, dtype=np.float32), "w"), *nodes))
    (folder / "text.onnx").write_text("no model")
    (folder / "own.rows").write_text("1 0 0\n0 1 0\n0 0 1\n")
    write(folder / "loihi.net", dense(np.eye(3, 4) * 8), dense(np.eye(2, 3) * 8))
    torch.save(weights, folder / "weights.pt")
    save_file(weights, folder / "weights.safetensors")
    for name, value in (("keys", {"*": "*"}), ("low", [0.5, 0.25, 0, 0]), ("events", EVENTS)):
        (folder / f"{name}.json").write_text(json.dumps(value))
    np.save(folder / "low.npy", np.zeros(4))
    (folder / "net.onnx").write_bytes(onnx_of(numpy_helper.from_array(np.eye(12, 3, dtype=np.float32), "w")))
    calibration(folder)
    (folder / "lab").mkdir()
    (folder / "lab/rows.py").write_text(PLUGIN)
    (folder / "strange.py").write_text(NETWORKS)
    (folder / "faulty.py").write_text("from torch import nn\n\nraise RuntimeError('no data')")
    (folder / "header.npy").write_bytes(np.lib.format.magic(1, 0) + b"\1\0(")
    circle: dict[str, object] = {"weights": 1}
    torch.save(circle | {"itself": circle, "again": circle}, folder / "none.pt")
    circle["itself"] = circle["again"] = circle
    torch.save(circle, folder / "circle.pt")
    torch.save(weights | {"a\nb": torch.zeros(1)}, folder / "break.pt")
    torch.save(torch.nn.Linear(2, 2), folder / "whole.pt")
    for name, arrays in {
        "of_z": {"z": np.zeros(3)},
        "of_other": {"x": np.eye(100, 3), "y": np.arange(100) % 10},
        "of_nan": {"x": np.full((100, 12), np.nan), "y": np.arange(100) % 10},
        "of_one": {"x": np.zeros((40, 12)), "y": np.zeros(40, np.int64)},
    }.items():
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Run a command that has to leave nothing beside the files, and return the sentence by which it ends."""
    monkeypatch.chdir(folder)

    def run(*words: str) -> str:
        before = {*folder.rglob("*")}
        done = training_here(*words, cwd=folder)
        left = {path for path in {*folder.rglob("*")} - before if "__pycache__" not in path.parts}
        assert (done.returncode, left) in ((1, set()), (2, set())), done.stdout
        assert len(done.stderr) < 2500
        return re.sub(r"^(error|spikeserve): ", "", done.stderr)

    with fresh_door():
        yield run


def in_words(kind: str, file: str) -> list[str]:
    """Return the words that read a file in the place of the whole one."""
    words = [word.replace("FILE", file) for word in WORDS[kind]]
    return words if words[0] == "check" else [*words, *INTO]


@pytest.mark.parametrize("kind", WORDS)
def test_a_whole_file_is_taken(kind: str, folder: Path, tmp_path: Path) -> None:
    done = training_here(*in_words(kind, kind), "--repository", tmp_path / "models", cwd=folder)
    assert done.returncode == 0, done.stderr
    network = ModelRepository(tmp_path / "models").read("mine").network
    assert not kind.startswith("weights") or (network.tensors["linear_0.weight"] == 1).all()


CHECKS: list[tuple[str, int, tuple[str, ...]]] = [
    (f"nir graph.nir {' '.join(RULES)}", 0,
        ("fc", "LIF", "2×2", "input → fc", "lif → output", "Cycles: none", "Can be served.")),
    (f"loop.nir {' '.join(RULES)}", 0, ("Cycles: lif → w_rec → lif", "0.001, 0.002", "Can be served.")),
    ("graph.nir", 3, ("Missing rules: dialect, dt, reset", "Can be served once these are named.")),
    ("negative.nir", 1,
        ("Missing rules: dia", "Cannot be served: node 'lif': v_threshold is -1, expected more than 0")),
    (f"negative.nir {' '.join(RULES)}", 1, ("Cannot be served: node 'lif': v_threshold is -1, expected more than 0",)),
    (f"unknown.nir {' '.join(RULES)}", 1, ("node 'lif': Izhikevich is not served",)),
    ("--plugins-dir lab check rows own.rows --time-steps 3", 0, ("rows: 3. Can be served.",)),
]  # fmt: skip


def _files(folder: Path) -> dict[Path, int]:
    """Return when each file was written, but for those that Python writes."""
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}
    return {path: time for path, time in written.items() if "__pycache__" not in path.parts}


@pytest.mark.parametrize(("words", "status", "parts"), CHECKS)
def test_a_check_says_what_would_come_in_and_writes_nothing(
    words: str, status: int, parts: tuple[str, ...], folder: Path
) -> None:
    before = _files(folder)
    with fresh_door():
        done = training_here(*(words if words.startswith("--") else f"check {words}").split(), cwd=folder)
    shown = " ".join(done.stdout.split())
    assert (done.returncode, [part for part in parts if part not in shown]) == (status, []), done.stdout
    assert _files(folder) == before


def a_terabyte(path: Path, _: bytes) -> None:
    path.touch()
    os.truncate(path, 2**40)  # sparse: it takes no disk


Damage = Callable[[Path, bytes], object]
DAMAGES: dict[str, Damage] = {
    "nothing": lambda path, _: path.write_bytes(b""),
    "its first quarter": lambda path, whole: path.write_bytes(whole[: len(whole) // 4]),
    "its first half": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "all but its end": lambda path, whole: path.write_bytes(whole[:-2]),
    "every 37th byte": lambda path, whole: path.write_bytes(bytes(n ^ 255 * (at % 37 == 0) for at,
        n in enumerate(whole))),
    "lists in lists": lambda path, _: path.write_bytes(b"[" * 100_000),
    "a number that is too large": lambda path, _: path.write_bytes(b"1" + b"0" * 400),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
    "a terabyte": a_terabyte,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", WORDS)
def test_a_damaged_file_is_one_sentence_that_names_it(
    kind: str, damage: str, folder: Path, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    DAMAGES[damage](path := tmp_path / kind, (folder / kind).read_bytes())
    sentence = refusal(*in_words(kind, str(path)))
    assert (sentence.count("\n"), kind in sentence) == (1, True), sentence


PICKLES: dict[str, Callable[[], bytes]] = {
    "weights.pt": lambda: in_memory(torch.save, {"0.weight": Calls()}),
    "low.npy": lambda: in_memory(np.save, np.array([Calls()], object), allow_pickle=True),
    "samples.npz": lambda: in_memory(np.savez, x=np.array([Calls()], object), y=np.zeros(1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", WORDS)
def test_no_pickle_is_called(kind: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    content = PICKLES.get(kind, lambda: in_memory(np.save, np.array([Calls()], object), allow_pickle=True))()
    (tmp_path / kind).write_bytes(content)
    assert kind in refusal(*in_words(kind, str(tmp_path / kind)))


def shaped(*shape: int) -> bytes:
    """Return an .npy that says it has a shape, and has no values."""
    return in_memory(np.lib.format.write_array_header_1_0, {"descr": "<f8", "fortran_order": False, "shape": shape})


def zipped(content: bytes) -> bytes:
    import zipfile

    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", content)
    return stream.getvalue()


LIES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "an .npy of a terabyte": ("low.npy", lambda: shaped(2**40), "expected one number; or one for each channel"),
    "an .npz of a terabyte": ("samples.npz", lambda: zipped(shaped(2**20, 2**20)), "cannot be read as an .npz"),
    "a header of an exabyte": ("weights.safetensors", lambda: struct.pack("<Q", 2**60) + b"{}", "as tensors alone"),
    "a tensor of a terabyte": ("net.onnx",
        lambda: onnx_of(onnx.TensorProto(name="w", data_type=1, dims=[12, 2**36], raw_data=b"\0" * 8)),
        "cannot be converted: cannot reshape array"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_size_that_lies_is_a_sentence(lie: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    kind, content, part = LIES[lie]
    (tmp_path / kind).write_bytes(content())
    sentence = refusal(*in_words(kind, str(tmp_path / kind)))
    assert (kind in sentence, part in sentence, sentence.count("\n")) == (True, True, 1), sentence


def parent(name: str) -> str:
    return name.rpartition("/")[0]


def replace(file: h5py.File, name: str, value: Any = None, **how: Any) -> None:
    """Put something else in a data set's place: a value, or a data set that is created so."""
    del file[name]
    if how:
        file.create_dataset(name, dtype=np.float32, **how)
    else:
        file[name] = value


H5: dict[str, tuple[Callable[[h5py.File, str, str], object], str]] = {
    "a link to a file": (lambda file, at, _: replace(file, at, h5py.ExternalLink("/etc/passwd", "/")),
        "is a link, which"),
    "a link inside": (lambda file, at, _: replace(file, at, h5py.SoftLink("/version")), "is a link, which is refused"),
    "data outside": (lambda file, at, _: replace(file, at, shape=(2,), external=[("/etc/passwd", 0, 16)]),
        "is not plain data inside the file"),
    "a reference": (lambda file, at, group: replace(file, at, file[group].ref), "holds neither numbers nor text"),
    "chunks of 4 TB that were never written": (lambda file, at, _: replace(file, at, shape=(10**6, 10**6),
        chunks=(1000, 1000)), "it needs more memory than a file may, which is refused"),
    "groups in a circle": (  # two ways round: 2**32 groups, were each path to one followed as deep as graphs may lie
        lambda file, _, group: file[parent(group)].update(dict.fromkeys(("left", "right"), file[group[:5].strip("/")])),
        "is a group that the file holds elsewhere too",
    ),
    "a name that is no text": (lambda file, _, group: file.move(group, f"{group}\x1b"), r"\x1b' is not plain text"),
    "no type": (lambda file, _, group: file.pop(f"{group}/type"), "no type"),
    "too many groups": (lambda file, _, group: file.update({f"{group}{number}/type": "IF" for number in range(9)}),
        "the file has more than 8 groups, which is refused"),
}  # fmt: skip
OF_H5 = {"graph.nir": ("node/nodes/fc/weight", "node/nodes/fc"), "loihi.net": ("layer/0/weight", "layer/0")}


@pytest.mark.parametrize("damage", H5)
@pytest.mark.parametrize("kind", OF_H5)
def test_what_must_not_be_read_of_hdf5_is_refused(
    kind: str, damage: str, folder: Path, tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_GROUPS", 8)
    monkeypatch.setattr("spikeserve.plugins.nir.file.call", lambda function, *given, **_: function(*given))
    (path := tmp_path / kind).write_bytes((folder / kind).read_bytes())
    change, part = H5[damage]
    with h5py.File(path, "a") as file:
        change(file, *OF_H5[kind])
    sentence = refusal(*in_words(kind, str(path)))
    assert re.match(rf"'.*{kind}': |node '", sentence)
    assert (part in sentence, sentence.count("\n")) == (True, 1), sentence


REFUSED: list[tuple[str, str]] = [
    # what is there of a framework, and of a function's name
    ("import keras strange:linear", "'keras' may be anything, expected the name of its importer first: lava, nir"),
    ("import torch strange", "entry: 'strange' names no factory, expected package.module:factory"),
    ("import torch strange:two", "entry: 'strange' has no 'two'"),
    ("import torch strange:IMPORTS", "entry: 'strange:IMPORTS' gives a int, expected an nn.Module"),
    ("import torch strange:leaves", "entry: 'strange:leaves' fails: strange.py, line 7: 0"),
    ("import torch strange:misspelt",
        "entry: 'strange:misspelt' fails: strange.py, line 16: Linear.__init__() missing"),
    ("import torch strange:older", "since 0.0.0.0.13 its name is spikingjelly.activation_based"),
    ("import torch strange:other_backend", "SpikingJelly 2 chooses its backend by itself: leave the argu"),
    ("import torch faulty:net", "entry: 'faulty' cannot be imported: faulty.py, line 3: no data"),
    ("import torch strange:empty", "the network has no layer"),
    ("import torch strange:lazy",
        "entry: 'strange:lazy' has no values for '0.weight', expected a network that has run"),
    ("import torch strange:without_values", "entry: 'strange:without_values' has no values for '0.weight', expected"),
    ("import torch strange:holds_itself", "entry: 'strange:holds_itself' is no network that can be read: maximum recu"),
    ("import torch strange:scripted", "gives a compiled module (RecursiveScriptModule), whose code cannot be read"),
    ("import torch strange:traced_within", "holds a compiled module at '1' (TopLevelTracedModule)"),
    ("import torch strange:quantised", "has quantised weights at '0', expected the network of floats from before quan"),
    ("import torch strange:noisy", "'0.weight' is computed otherwise each time it is read"),
    ("import torch strange:Rest",
        "the network (Rest) cannot be folded into a graph: given one step of (batch=3, 4), its"),
    ("import torch strange:Leaves",
        "the network (Leaves) cannot be folded into a graph: given one step of (batch=3, 4)"),
    ("import torch strange:Fails", "the network (Fails) cannot be folded into a graph: given one step of (batch=3, 4)"),
    ("import torch strange:activated",
        "the network holds 2 things that cannot be converted:\n  1 (torch.nn.modules.act",),
]  # fmt: skip
LINEAR = "import torch strange:linear"
OPTIONS: list[tuple[str, str]] = [
    ("--low @", "--low is '@', which cannot be read: Is a directory"),
    ("--low @header.npy", "--low is '@header.npy', expected one number; or one for each channel"),
    ("--state-dict nowhere.pt", "state-dict: 'nowhere.pt' cannot be read: No such file or directory"),
    ("--state-dict circle.pt", "state-dict: 'circle.pt' holds no tensors by name, but 'weights' (int)"),
    ("--state-dict none.pt", "state-dict: 'none.pt' holds no tensors by name, but 'weights' (int)"),
    ("--state-dict break.pt", "state-dict: 'break.pt' does not fit the network: Error(s) in loading"),
    ("--state-dict whole.pt", "state-dict: 'whole.pt' cannot be read as tensors alone"),
    ("--state-dict weights.pt --rename nowhere.json", "rename: 'nowhere.json' cannot be read: No such fil"),
    ("--rename keys.json", "rename: it is 'keys.json', but there is no --state-dict whose keys it is about"),
    ("--repository low.npy", "'low.npy/mine': cannot be read or written: Not a directory"),
    ("--input-shape 3×3", "--input-shape is '3×3', expected sizes with commas"),
    ("--input-shape 8", "the network holds one thing that cannot be converted:"),
    ("--name ../up", "name: '../up' is not a model's name"),
    ("--labels a,b", "the spec is invalid: node 'linear_0': its output has shape 3, but"),
    ("--readout max_membrane", "readout 'max_membrane' needs a neuron as the last node, not Linear"),
    ("--std 0", "--std is 0, expected more than 0"),
    ("--mean 1,2 --std 1,2,3", "--mean has 2 numbers and --std 3, expected as many of both, or one"),
]  # fmt: skip
OTHERS: list[tuple[str, str]] = [
    ("import nir nowhere.nir", "'nowhere.nir' cannot be read: No such file or directory"),
    ("import nir weights.pt", "'weights.pt': it is not a NIR file"),
    ("import nir loihi.net", "'loihi.net': it is HDF5, but no NIR file: it has no group 'node'"),
    ("import nir graph.nir", "the file does not name its dialect, dt, reset, which NIR leaves out"),
    ("import nir graph.nir --dt 1e-4", "the file does not name its dialect, reset, which NIR leaves out: give --d"),
    ("import nir graph.nir --dialect nir --reset zero", "does not name its dt, which"),
    ("import nir graph.nir --dialect nir --reset zero --dt 0", "expected a number of seconds more than 0"),
    ("import nir graph.nir --dialect nir --reset zero --dt nan", "expected a number of seconds more than 0"),
    ("import lava weights.pt", "'weights.pt': it is not a network of lava-dl: Unable to"),
    ("import lava graph.nir", "'graph.nir': it is HDF5, but no network of lava-dl: it has no group 'layer'"),
    ("--plugins-dir lab import rows low.npy --time-steps 3", "'low.npy' is no file of weights: "),
    ("check weights.pt", "'weights.pt' may be anything, expected the name of its importer first"),
    ("check lava loihi.net", "check: this importer checks no file, expected one that does, such as nir"),
    ("convert strange:wide --input-shape 12 --calibration of_z.npz", "holds no 'x' but z"),
    ("convert strange:wide --input-shape 12 --calibration of_other.npz", "samples of shape 3, but model 'mine' has 3 "),
    ("convert strange:wide --input-shape 12 --calibration of_nan.npz", "the value at (0, 0) is nan"),
    ("convert strange:wide --input-shape 12 --calibration of_one.npz", "holds 1 class, expected at least 2"),
    ("convert net.onnx --input-shape 12 --calibration samples.npz --state-dict weights.pt",
        "but an ONNX file has its w"),
    ("convert strange:Gated --input-shape 12 --calibration samples.npz", ": it is no ReLU, expected ReLU or ReLU6"),
    ("convert strange:clipped --input-shape 12 --calibration samples.npz", "min_val is -1"),
    ("convert attention.onnx --input-shape 12 --calibration samples.npz",
        "the network holds 2 things that cannot be converted:\n  'gate' (Erf): no rule converts it\n"
        "  'attention' (MatMul): its input 2 is no constant of 2 axes in the file"),
    ("convert text.onnx --input-shape 12 --calibration samples.npz", "'text.onnx' is no ONNX model"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of torch, about its own ways
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        *((f"{words} --input-shape 4 --time-steps 2", sentence) for words, sentence in REFUSED),
        *((f"{LINEAR} --input-shape 4 --time-steps 2 {flags}", sentence) for flags, sentence in OPTIONS),
        *OTHERS,
    ],
)  # fmt: skip
def test_it_is_refused_by_a_sentence_that_says_what_and_where(
    words: str, sentence: str, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "strange", raising=False)
    into = (
        ()
        if words.startswith("check")
        else (name for pair in (INTO[:2], INTO[2:]) if pair[0] not in words for name in pair)
    )
    assert sentence in refusal(*words.split(), *into)
