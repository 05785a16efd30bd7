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
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.training.__main__ import main
from spikeserve.training.commands.sentences import sentence_of
from tests.apps import app
from tests.hostile_bundles.specs import huge_specs
from tests.training.command_line import training_here

FIT = ("fit", "--dataset", "arrays", "--file", "data.npz", "--time-steps", "2", "--epochs", "1")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files, good and bad, that no command changes."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=rng.random((40, 4), np.float32), y=np.arange(40) % 2)
    (folder / "deep.toml").write_text("a = " + "[" * 100_000)
    (folder / "null.toml").write_text('[data]\nfolder = "a\\u0000b"\n')
    (folder / "escape.toml").write_text('[data]\ndataset = "\\u001b[31m"\n')
    with (folder / "large.toml").open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no disk
    for name in ("x.npy", "data.pkl", "data.json"):
        (folder / name).write_text("[1]")
    for suffix in (".npz", ".toml"):
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


FIT_FLAGS: list[tuple[list[str], str]] = [
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
    (["--file", "x.npy"], "'x.npy': is no .npz, .csv or .parquet: read it by np.load, and write its arrays by np."),
    (["--file", "data.pkl"], "'data.pkl': is no .npz, .csv or .parquet: read it by pickle.load, and write"),
    (["--file", "data.json", "--name", "a"], "'data.json': is no .npz, .csv or .parquet: read it by json.load"),
    (["--name", "a"], "--name would be ignored: it names what --repository publishes; add --repository FOLDER"),
    (["--file", "pipe.npz"], "'pipe.npz': cannot be read as an .npz of numbers: it is a pipe, a socket or a devic"),
    (["--config", "pipe.toml"], "config: 'pipe.toml' cannot be read: it is a pipe, a socket or a device"),
    (["--config", "large.toml"], "config: 'large.toml' cannot be read: it has 1,099,511,627,776 bytes, expected a"),
    (["--config", "deep.toml"], "config: 'deep.toml' is nested too deep, expected sections with fields"),
    (["--config", "null.toml"], "null.toml: data.folder: input should be a path without null characters"),
    (["--architecture", "4", "--runs", "data.npz"], "'data.npz': cannot be read or written: File exists"),
    (["--epochs", "0"], "configuration: optimisation.epochs: input should be greater than or equal"),
    (["--neuron", "Izhikevich"], "configuration: network.neuron: input should be 'IF', 'LIF', 'CubaLIF', 'ALIF',"),
    (["--architecture", "8C2"], "architecture: '8C2' has a kernel of 2, expected an odd one"),
    (["--file", "nowhere.npz"], "'nowhere.npz'"),
    (["--config", "nowhere.toml"], "config: 'nowhere.toml' cannot be read"),
    (["--architecture", "4", "--device", "cuda:7"], "device 'cuda:7': PyTorch"),
    (["--coding", "latency", "--normalise", "standard"], "normalise: is 'standard', but coding 'latency' needs"),
]
EXPORTS: list[tuple[list[str], str]] = [
    (["x.nir", "--dt", "0"], "--dt is 0, expected a finite number of seconds above 0"),
    (["x.nir", "--dt", "nan"], "--dt is nan, expected a finite number of seconds above 0"),
    (["."], "'.': cannot be read or written: Is a directory"),
    (["nowhere/x.nir"], "'nowhere/x.nir': cannot be read or written: No such file or directory"),
]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        *(([*FIT, *flags], sentence) for flags, sentence in FIT_FLAGS),
        *((["export", "nir", str(PRETRAINED / "digits/1"), *words], sentence) for words, sentence in EXPORTS),
        (["export", "nir", "nowhere", "x.nir"], "bundle: 'nowhere' is no bundle's folder and no model of ./repository"),
        (["export", "nir", "toy", "x.nir", "--repository", "nowhere"], "model 'toy' is not in the repository"),
        *(
            (["export", *words, "nowhere"], "run: 'nowhere' is not a run's folder")
            for words in ([], ["--name", "toy"], ["run"])
        ),
        # A value of a file controls no terminal.
        (["fit", "--config", "escape.toml"], "dataset: '\\x1b[31m' is not one, expected digits"),
    ],
)
def test_it_is_refused_by_a_sentence(words: list[str], sentence: str, told: Callable[..., str]) -> None:
    assert told(*words).startswith(sentence)


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
