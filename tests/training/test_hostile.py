"""Hostile arguments and files on the command line: each is one sentence, at once, and leaves nothing behind.

They run in this process. A named pipe stands for all files that are none: who opens it waits for ever.
"""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.training.__main__ import main
from spikeserve.training.commands.sentences import sentence_of
from tests.apps import app
from tests.hostile_bundles.specs import huge_specs
from tests.training.command_line import training_here

FIT = ("fit", "--dataset", "arrays", "--file", "data.npz", "--time-steps", "2", "--epochs", "1")
IMPORT = ("--repository", "models", "--name", "mine")
NETWORKS = """
import sys
import torch
from torch import nn

IMPORTS = 3

def linear():
    return nn.Sequential(nn.Linear(4, 3))

def leaves():
    sys.exit(0)

def empty():
    return nn.Sequential()

def lazy():
    return nn.Sequential(nn.LazyLinear(3))

def without_values():
    return linear().to("meta")

def holds_itself():
    network = linear()
    network.add_module("itself", network)
    return network

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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files, good and bad, that no command changes."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=rng.random((40, 4), np.float32), y=np.arange(40) % 2)
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "hostile_networks.py").write_text(NETWORKS)
    weights = {"0.weight": torch.zeros(3, 4), "0.bias": torch.zeros(3)}
    torch.save(weights, folder / "good.pt")
    circle: dict[str, object] = {"weights": 1}
    torch.save(circle | {"itself": circle, "again": circle}, folder / "none.pt")
    circle["itself"] = circle["again"] = circle
    torch.save(circle, folder / "circle.pt")
    torch.save(weights | {"a\nb": torch.zeros(1)}, folder / "break.pt")
    (folder / "header.npy").write_bytes(np.lib.format.magic(1, 0) + b"\1\0(")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "null.toml").write_text('[data]\nfolder = "a\\u0000b"\n')
    (folder / "escape.toml").write_text('[data]\ndataset = "\\u001b[31m"\n')
    with (folder / "large.toml").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no disk
    for suffix in (".npz", ".npy", ".toml", ".json", ".pt", ".safetensors", ".onnx", ".nir"):
        os.mkfifo(folder / f"pipe{suffix}")
    return folder


@pytest.fixture
def told(files: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a command's sentence; nothing is left beside the files."""
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: object) -> str:
        before = set(files.rglob("*"))
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code != 0, result.output
        left = {path for path in set(files.rglob("*")) - before if "__pycache__" not in path.parts}
        assert left == set()
        if isinstance(result.exception, SystemExit):  # typer's own
            return " ".join(result.output.split())
        assert isinstance(result.exception, Exception)
        sentence = sentence_of(result.exception)
        assert sentence is not None, repr(result.exception)
        return sentence

    return run


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--architecture", "1000000000"], "architecture: '1000000000' is too large to be served: node 'neuron1': wit"),
        (["--architecture", "100000R"], "architecture: '100000R' is too large to be served: node 'neuron1': with"),
        (["--architecture", "9" * 5000], "configuration: network.architecture: string should have at most 4096 char"),
        (["--architecture", ""], "configuration: network.architecture: string should have at least 1 character"),
        (["--architecture", "8--8"], "architecture: '' is not a layer, expected one like 32C3"),
        (["--architecture", "8-none"], "architecture: 'none' is not a layer, expected one like 32C3"),
        (["--batch-size", "1" + "0" * 20], "configuration: optimisation.batch_size: input should be less than or equa"),
        (["--split-seed", "4294967296"], "configuration: data.split_seed: input should be less than 4294967296"),
        (["--shift", "1" + "0" * 20], "configuration: augment.shift: input should be less than 2147483648"),
        (["--learning-rate", "1e300"], "configuration: optimisation.learning_rate: 1e+300 does not fit into float32"),
        (["--file", "pipe.npz"], "'pipe.npz': cannot be read as an .npz of numbers: it is a pipe, a socket or a devic"),
        (["--config", "pipe.toml"], "config: 'pipe.toml' cannot be read: it is a pipe, a socket or a device"),
        (["--config", "large.toml"], "config: 'large.toml' cannot be read: it has 1,099,511,627,776 bytes, expected a"),
        (["--config", "null.toml"], "null.toml: data.folder: input should be a path without null characters"),
        (["--architecture", "4", "--runs", "data.npz"], "'data.npz': cannot be read or written: File exists"),
        (["--epochs", "0"], "configuration: optimisation.epochs: input should be greater than or equal"),
        (["--neuron", "Izhikevich"], "configuration: network.neuron: input should be 'IF', 'LIF', 'CubaLIF', 'ALIF',"),
        (["--architecture", "8C2"], "architecture: '8C2' has a kernel of 2, expected an odd one"),
        (["--name", "../up"], "name: '../up' is not a model's name"),
        (["--file", "nowhere.npz"], "'nowhere.npz'"),
        (["--config", "nowhere.toml"], "config: 'nowhere.toml' cannot be read"),
        (["--architecture", "4", "--device", "cuda:7"], "device 'cuda:7': PyTorch"),
        (["--coding", "latency", "--normalise", "standard"], "normalise: is 'standard', but coding 'latency' needs"),
    ],
)
def test_fit(flags: list[str], sentence: str, told: Callable[..., str]) -> None:
    assert told(*FIT, *flags).startswith(sentence)


def test_a_value_of_a_file_controls_no_terminal(told: Callable[..., str]) -> None:
    assert told("fit", "--config", "escape.toml").startswith("dataset: '\\x1b[31m' is not one, expected digits")


@pytest.mark.parametrize(
    ("file", "flags", "sentence"),
    [
        ("x.nir", ["--dt", "0"], "--dt is 0, expected a finite number of seconds above 0"),
        ("x.nir", ["--dt", "nan"], "--dt is nan, expected a finite number of seconds above 0"),
        (".", [], "'.': cannot be read or written: Is a directory"),
        ("nowhere/x.nir", [], "'nowhere/x.nir': cannot be read or written: No such file or directory"),
        ("data.npz/x.nir", [], "'data.npz/x.nir': cannot be read or written: Not a directory"),
    ],
)
def test_export_nir(file: str, flags: list[str], sentence: str, told: Callable[..., str]) -> None:
    assert told("export", "nir", PRETRAINED / "digits" / "1", file, *flags) == sentence


@pytest.mark.skipif(sys.platform != "linux", reason="the bound on a file's size is Linux' here")
def test_export_nir_to_a_full_disk_is_one_sentence_and_leaves_no_file(tmp_path: Path, told: Callable[..., str]) -> None:
    # Nothing here may write a file over 8 KiB for a moment; the digits need some 100.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        sentence = told("export", "nir", PRETRAINED / "digits" / "1", tmp_path / "x.nir")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sentence == f"'{tmp_path}/x.nir': cannot be read or written: File too large"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--low", "@pipe.npy"], "--low is '@pipe.npy', which cannot be read: it is a pipe, a socket or a device"),
        (["--low", "@pipe.json"], "--low is '@pipe.json', which cannot be read: it is a pipe, a socket or a device"),
        (["--low", "@"], "--low is '@', which cannot be read: Is a directory"),
        (["--low", "@header.npy"], "--low is '@header.npy', expected one number; or one for each channel"),
        (["--low", "@objects.npy"], "--low is '@objects.npy', expected one number; or one for each channel"),
        (["--state-dict", "pipe.pt"], "state-dict: 'pipe.pt' cannot be read: it is a pipe, a socket or a device"),
        (["--state-dict", "pipe.safetensors"], "state-dict: 'pipe.safetensors' cannot be read: it is a pipe"),
        (["--state-dict", "nowhere.pt"], "state-dict: 'nowhere.pt' cannot be read: No such file or directory"),
        (["--state-dict", "circle.pt"], "state-dict: 'circle.pt' holds no tensors by name, but 'weights' (int)"),
        (["--state-dict", "none.pt"], "state-dict: 'none.pt' holds no tensors by name, but 'weights' (int)"),
        (["--state-dict", "break.pt"], "state-dict: 'break.pt' does not fit the network: Error(s) in loading"),
        (["--state-dict", "good.pt", "--rename", "deep.json"], "rename: 'deep.json' is nested too deep, expected an o"),
        (["--state-dict", "good.pt", "--rename", "pipe.json"], "rename: 'pipe.json' cannot be read: it is a pipe, a s"),
        (["--state-dict", "good.pt", "--rename", "nowhere.json"], "rename: 'nowhere.json' cannot be read: No such fil"),
        (["--repository", "data.npz"], "'data.npz/mine': cannot be read or written: Not a directory"),
        (["--input-shape", "3×3"], "--input-shape is '3×3', expected sizes with commas"),
        (["--input-shape", "8"], "the network holds one thing that cannot be converted:"),
        (["--name", "../up"], "name: '../up' is not a model's name"),
        (["--labels", "a,b"], "the spec is invalid: node 'linear_0': its output has shape 3, but"),
    ],
)
def test_import_of_a_framework(flags: list[str], sentence: str, told: Callable[..., str]) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")
    given = ("--input-shape", "4", "--time-steps", "2", *IMPORT)
    assert told("import", "snntorch", "hostile_networks:linear", *given, *flags).startswith(sentence)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("", "entry: 'hostile_networks' names no factory, expected package.module:factory"),
        (":two", "entry: 'hostile_networks' has no 'two'"),
        (":IMPORTS", "entry: 'hostile_networks:IMPORTS' gives a int, expected an nn.Module"),
        (":leaves", "entry: 'hostile_networks:leaves' fails: hostile_networks.py, line 12: 0"),
        (":empty", "the network has no layer"),
        (":lazy", "entry: 'hostile_networks:lazy' has no values for '0.weight', expected a network that has run once"),
        (":without_values", "entry: 'hostile_networks:without_values' has no values for '0.weight', expected a networ"),
        (":holds_itself", "entry: 'hostile_networks:holds_itself' is no network that can be read: maximum recursion"),
        (":Rest", "the network (Rest) cannot be folded into a graph: given one step of (batch=3, 4), its forward fa"),
        (":Leaves", "the network (Leaves) cannot be folded into a graph: given one step of (batch=3, 4), its forward"),
        (":Fails", "the network (Fails) cannot be folded into a graph: given one step of (batch=3, 4), its forward fa"),
    ],
)
def test_import_of_an_authors_own_code(entry: str, sentence: str, told: Callable[..., str]) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")
    given = ("--input-shape", "4", "--time-steps", "2", *IMPORT)
    assert told("import", "snntorch", f"hostile_networks{entry}", *given).startswith(sentence)


def test_a_pipe_is_no_nir_file(told: Callable[..., str]) -> None:
    sentence = "'pipe.nir' cannot be read: it is a pipe, a socket or a device, expected a file"
    assert told("import", "nir", "pipe.nir", *IMPORT) == told("check", "nir", "pipe.nir") == sentence
    assert told("check", "pipe.nir").startswith("'pipe.nir' may be anything, expected the name of its importer first")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    """A run that has ended."""
    folder = tmp_path_factory.mktemp("run")
    data = ("--file", files / "data.npz", "--architecture", "4", "--runs", folder)
    assert training_here(*FIT, *data, plots=False).returncode == 0
    return folder / "data-1"


@pytest.mark.parametrize("file", ["config.toml", "checkpoint.pt", "spec.json", "network.safetensors", "metrics.json"])
def test_a_pipe_is_no_file_of_a_run(file: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / file).unlink()
    os.mkfifo(broken / file)
    before = {path: path.lstat().st_mtime_ns for path in broken.rglob("*")}
    needs = {"checkpoint.pt": ("fit", "--resume"), "metrics.json": ("export",)}
    result = CliRunner().invoke(app, [*needs.get(file, ("evaluate",)), str(broken)])
    assert result.exit_code != 0
    assert isinstance(result.exception, Exception)
    assert file in (sentence_of(result.exception) or "")
    # A run that cannot be resumed has no events of another start either.
    now = {path: path.lstat().st_mtime_ns for path in broken.rglob("*") if path.name != "config.toml"}
    assert now == {path: time for path, time in before.items() if path.name != "config.toml"}


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_runs_network_is_priced_first(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "huge")
    name, spec, sentence = huge_specs()[0]
    assert name == "padding"
    (tmp_path / "huge/spec.json").write_text(json.dumps(spec))
    result = CliRunner().invoke(app, [command, "huge"])
    assert isinstance(result.exception, Exception)
    assert (sentence_of(result.exception) or "").startswith(sentence)


def test_the_command_tells_it(files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["training", "fit", "--config", str(files / "pipe.toml")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: config: ")
