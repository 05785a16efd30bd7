"""Settings come from flags and the environment, and a mistake in one is a sentence and exit status 2.

The objects of an app are made in order, each of those before it: nothing is put into them later.
"""

import ast
import inspect
import os
import socket
from pathlib import Path

import pytest

from spikeserve.models.bundle.copies import CACHE
from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.app import make_services
from spikeserve.service.errors import Misconfigured
from spikeserve.service.keys import KeyRing
from spikeserve.service.process.command_line import main
from spikeserve.service.process.flags import read_settings
from spikeserve.service.settings import ENVIRONMENT_PREFIX, REMOVED, available_cores, with_protocols


def test_nothing_needs_to_be_set() -> None:
    settings = read_settings([])
    assert (settings.host, settings.port, settings.repository) == ("127.0.0.1", 8000, PRETRAINED)
    assert (settings.engine, settings.device, settings.versions) == ("auto", "cpu", "latest")
    assert settings.threads >= 1


def test_a_flag_wins_over_the_environment(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKESERVE_REPOSITORY", str(repository))
    monkeypatch.setenv("SPIKESERVE_PORT", "9000")
    monkeypatch.setenv("SPIKESERVE_MAX_BATCH", "7")
    settings = read_settings(["--port", "9001", "--engine", "reference"])
    assert (settings.repository, settings.port, settings.max_batch) == (repository, 9001, 7)
    assert settings.engine == "reference"


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "DEFAULT_MODEL", "THREADS", "ENGINE"):
        monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}{name}", "")
    assert read_settings([]).model_dump() == with_protocols()().model_dump()


@pytest.mark.parametrize("name", ["api_keys", "admin_keys"])
@pytest.mark.parametrize("empty", ["", " ", "\n", "None"])
def test_but_keys_that_come_out_empty_start_no_open_server(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, empty: str
) -> None:
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}{name.upper()}", empty)
    assert main(["--repository", str(repository)]) == 2
    assert capsys.readouterr().err.startswith(f"spikeserve: {name}")
    monkeypatch.delenv(f"{ENVIRONMENT_PREFIX}{name.upper()}")
    assert main(["--repository", str(repository), f"--{name.replace('_', '-')}", empty]) == 2
    assert capsys.readouterr().err.startswith(f"spikeserve: {name}")
    assert not KeyRing.of(read_settings(["--repository", str(repository)]))


@pytest.mark.parametrize("name", REMOVED)
def test_a_setting_that_is_gone_says_what_stands_for_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variable, flag = f"SPIKESERVE_{name.upper()}", f"--{name.replace('_', '-')}"
    for flags in ([flag, "7"], [f"{flag}=7"], *([] if variable == CACHE else [[]])):  # of that one the variable is left
        if not flags:
            monkeypatch.setenv(variable, "7")
        with pytest.raises(Misconfigured) as refused:
            read_settings(flags)
        assert str(refused.value) == f"{name}: is no setting any more ({variable}, {flag}); {REMOVED[name]}"
    assert not REMOVED.keys() & with_protocols().model_fields.keys()


@pytest.mark.parametrize("flags", [[], ["--grpc-port", "8001"]])
def test_a_setting_of_a_plugin_that_is_not_there_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    if not flags:
        monkeypatch.setenv("SPIKESERVE_GRPC_PORT", "8001")
    monkeypatch.setattr("spikeserve.service.settings.of_kind", lambda _: {})  # as behind a shut door
    with pytest.raises(Misconfigured) as refused:
        read_settings(flags)
    assert str(refused.value) == (
        "grpc_port: is no setting here (SPIKESERVE_GRPC_PORT, --grpc-port); the plugin grpc brings it, which is not in "
        "this installation, or not in SPIKESERVE_PLUGINS"
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes have no affinity here")
def test_there_are_as_many_threads_as_cores_it_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("spikeserve.service.settings.CPU_MAX", quota)
    allowed = os.sched_getaffinity(0)
    assert available_cores() == len(allowed)
    quota.write_text("max 100000\n")
    assert available_cores() == len(allowed)
    for text, most in (("50000 100000\n", 1), ("100000 100000\n", 1), ("150000 100000\n", 2)):
        quota.write_text(text)
        assert available_cores() == min(most, len(allowed))
    quota.unlink()
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_every_setting_says_what_it_means_and_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--help"])
    said = capsys.readouterr().out
    for name, field in with_protocols().model_fields.items():
        assert (field.description or "").endswith(".")
        assert f"--{name.replace('_', '-')} " in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--port", "x"], "port is 'x', expected an integer"),
        (["--port", "70000"], "port is '70000', expected at most 65535"),
        (["--engine", "abacus"], "engine is 'abacus', expected 'auto', 'event', 'onnx', 'torch' or 'reference'"),
        (["--versions", "newest"], "versions is 'newest', expected latest, all or versions such as 1,3"),
        (["--versions", "7"], "versions: no model in the repository has one of 7"),
        (["--device", "gpu"], "device is 'gpu', expected cpu, cuda or cuda:<index>"),
        (
            ["--max-body-bytes", "2000", "--max-pending-bytes", "1000"],
            "max_pending_bytes is '1000', expected at least max_body_bytes, which is 2000",
        ),
        (
            ["--max-body-bytes", str(2**30)],
            f"max_pending_bytes is {2**29}, expected at least max_body_bytes, which is {2**30}",
        ),
        (["--repository", "/nowhere"], "repository is '/nowhere', expected a folder that exists"),
        (["--default-model", "nobody"], "default_model: 'nobody' is not in the repository; it holds: toy"),
        (["--engine", "onnx", "--device", "cuda"], "device 'cuda': engine 'onnx' runs on 'cpu' only"),
        (["--nonsense"], "unrecognized arguments: --nonsense; --help lists the flags"),
        (["--prot=80", "x"], "unrecognized arguments: --prot=80 x; did you mean --port?"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_2(
    repository: Path,
    flags: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{ENVIRONMENT_PREFIX}REPOSITORY", str(repository))
    assert main(flags) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"spikeserve: {sentence}")
    assert err.count("\n") == 1


def test_cuda_where_there_is_none_is_one_sentence(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    assert main(["--repository", str(repository), "--device", "cuda"]) == 2
    assert "finds no CUDA here" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_sentence(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--repository", str(repository), "--port", str(port)]) == 2
    said = f"--host, --port: cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert capsys.readouterr().err == f"spikeserve: {said}\n"


def test_no_attribute_is_assigned_where_the_services_are_made() -> None:
    nodes = ast.walk(ast.parse(inspect.getsource(make_services)))
    stored = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    assert [ast.unparse(node) for node in stored] == []
