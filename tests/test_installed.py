"""What `pip install` gives: a wheel of all that the packages hold, and a command that needs only what it is asked."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from spikeserve.models.version import VERSION
from tests.installed import PACKAGES, Environment, build_wheel, install
from tests.serving import Process
from tests.sources import ROOT

MAX_WHEEL_BYTES = 2_000_000  # it takes 1.6 MB; more would be a file that does not belong there


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with its extra `client`, and so without what serves."""
    return install(wheel, tmp_path_factory.mktemp("client") / "venv", "client")


@pytest.fixture(scope="module")
def server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with its extra `serve`, and so without httpx, PyTorch and Typer."""
    return install(wheel, tmp_path_factory.mktemp("server") / "venv", "serve")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder with two packages and a module of their own, named as this project's packages are."""
    for name in ("models/__init__.py", "service.py", "training/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise RuntimeError('this is the user\\'s own')\n")
    return tmp_path


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    here = {
        f"spikeserve/{path.relative_to(ROOT).as_posix().removeprefix('spikeserve/')}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as file:
        names = file.namelist()
    held = {name for name in names if ".dist-info/" not in name}
    assert held == here
    assert {name.partition("/")[0] for name in names} == {"spikeserve", f"spikeserve-{VERSION}.dist-info"}
    assert "spikeserve/py.typed" in held
    assert wheel.stat().st_size < MAX_WHEEL_BYTES
    assert wheel.name.endswith("-py3-none-any.whl"), "it names an architecture, although it holds no compiled code"


def test_a_server_starts_beside_a_users_own_models_service_and_training(server: Environment, own: Path) -> None:
    # The reference engine, since the kernels of the other would be compiled again in a new environment.
    command = [str(server.command), "serve", "--port", "0", "--engine", "reference"]
    with subprocess.Popen(command, cwd=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        running = Process(process)
        running.wait_for("model_ready")
        running.wait_for("model_ready")
        process.send_signal(signal.SIGTERM)
        assert running.ended() == 0


def test_bundles_are_checked_and_keys_made_there_too(server: Environment, own: Path) -> None:
    bundle = server.packages / "spikeserve/models/pretrained/digits/1"
    checked = server.run("check", bundle, "--engine", "reference", cwd=own)
    assert checked.stdout == "digits 1: ok, on the engine reference\n1 of 1 can be served\n", checked.stderr
    assert server.run("keys", cwd=own).returncode == 0
    assert server.run("--version", cwd=own).stdout == f"{VERSION}\n"


def test_the_library_is_found_beside_a_users_own_packages(server: Environment, own: Path) -> None:
    # The packages of training are those of this environment, behind the wheel's own.
    here = next(path for path in sys.path if Path(path).name == "site-packages")
    program = "from spikeserve.training.library import LIF; print(LIF(3, decay=0.5))"
    done = server.run(cwd=own, program=("-c", program), PYTHONPATH=f"{own}:{here}")
    assert done.stdout.startswith("LIF("), done.stderr


def test_a_command_whose_extra_is_missing_says_which(client: Environment, server: Environment, tmp_path: Path) -> None:
    (tmp_path / "graph.nir").touch()
    for environment, arguments, extra in [
        (client, ("serve",), "serve"),
        (client, ("keys",), "serve"),
        (client, ("check", "."), "serve"),
        (client, ("fit",), "train"),
        (server, ("fit",), "train"),
        (server, ("import", "nir", "graph.nir"), "train"),
        (server, ("check", "graph.nir"), "train"),
        (server, ("export", "c", "digits"), "export"),
    ]:
        done = environment.run(*arguments, cwd=tmp_path)
        said = rf"spikeserve: {arguments[0]} needs the extra {extra}: pip install 'spikeserve\[{extra}\]' \(.*\)\n"
        assert re.fullmatch(said, done.stderr)
        assert (done.returncode, done.stdout) == (1, "")


def test_the_client_is_imported_or_says_what_is_missing(
    client: Environment, server: Environment, tmp_path: Path
) -> None:
    program = ("-c", "from spikeserve import AsyncClient, Client, events; print(Client.__name__)")
    assert client.run(cwd=tmp_path, program=program).stdout == "Client\n"
    last_line = server.run(cwd=tmp_path, program=program).stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: AsyncClient needs the extra client: pip install 'spikeserve[client]'")


def test_the_wheels_command_trains_where_the_packages_for_that_are(server: Environment, tmp_path: Path) -> None:
    here = next(path for path in sys.path if Path(path).name == "site-packages")
    done = server.run("evaluate", "nothing", cwd=tmp_path, PYTHONPATH=here)
    assert done.stderr == "error: run: 'nothing' is not a run's folder, expected one with config.toml\n"
