"""What `pip install` gives: a wheel of all that the packages hold, and a command that needs only what it is asked.

The wheel of the project, and environments that it is installed in with the packages of an extra and no others.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

from spikeserve.models.version import VERSION
from tests.pages import LOCAL, block_with, blocks
from tests.serving import Process
from tests.sources import ROOT, requirements

PACKAGES = ("models", "plugins", "service", "spikeserve", "training")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel in `folder`, from a copy, since a build writes beside its sources."""
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [*PIP, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Environment:
    """A virtual environment, at `home`."""

    home: Path

    @property
    def python(self) -> Path:
        """Its interpreter, beside the command that the wheel puts there."""
        return self.home / "bin/python"

    @property
    def packages(self) -> Path:
        """The folder of its packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.home / "lib" / version / "site-packages"

    def add(self, package: Path) -> None:
        """Install a wheel, or a folder whose wheel needs setuptools alone, without what it needs."""
        if package.is_dir():
            build = [*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(self.home), str(package)]
            subprocess.run(build, check=True)
            (package,) = self.home.glob("*.whl")
        into = [*PIP, "--python", str(self.python), "install", "--quiet", "--no-deps", "--no-index", str(package)]
        subprocess.run(into, check=True)

    def run(
        self, *arguments: str | Path, cwd: Path, program: Collection[str] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run its command, or its Python with `program`, and return how that ended."""
        start = [str(self.python), *program] if program else [str(self.home / "bin/spikeserve")]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [*start, *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, env=clean | variables, capture_output=True, text=True, timeout=120, check=False
        )


def install(wheel: Path, home: Path, *extras: str) -> Environment:
    """Install the wheel in a new environment, beside the packages that it needs with `extras` and no others.

    The packages are links to those that are installed here, so that nothing is fetched.
    """
    venv.create(home, with_pip=False)
    environment = Environment(home)
    environment.add(wheel)
    for name in {name for each in needed(*extras) for name in top_level(each)}:
        (environment.packages / name).symlink_to(
            next(place for path in sys.path if (place := Path(path).resolve() / name).exists())
        )
    return environment


def needed(*extras: str) -> Iterator[Distribution]:
    """Yield what the project needs with `extras`, and what that needs in turn."""
    waiting, seen = list(requirements(*extras)), set()
    while waiting:
        requirement = waiting.pop()
        wanted = (requirement.name, *sorted(requirement.extras))
        if wanted in seen:
            continue
        seen.add(wanted)
        found = distribution(requirement.name)
        yield found
        for line in found.requires or ():
            below = Requirement(line)
            asked = ("", *requirement.extras)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in asked):
                waiting.append(below)


def top_level(found: Distribution) -> set[str]:
    """Return the names that a distribution has in site-packages."""
    return {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}


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
    command = [str(server.home / "bin/spikeserve"), "serve", "--port", "0", "--engine", "reference"]
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


@pytest.mark.deep
@pytest.mark.timeout(600)  # a new environment compiles its kernels again
def test_a_plugin_is_a_file_and_then_a_package_as_its_page_says(wheel: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/plugins.md").read_text()
    plugin, recordings, ask = blocks(page, "python")
    environment, lab = install(wheel, tmp_path / "venv", "serve", "train", "client"), tmp_path / "lab"
    lab.mkdir()
    (lab / "tally.py").write_text(plugin)
    assert not environment.run(cwd=tmp_path, program=("-c", recordings)).stderr
    *commands, serve = block_with(page, "sh", "fit").splitlines()

    def shell(command: str) -> str:
        path = f"{environment.home}/bin:{os.environ['PATH']}"
        done = subprocess.run(["/bin/bash", "-c", command], cwd=tmp_path, env={"PATH": path}, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    listed, _, answer = map(shell, commands)
    for each in ("reader +tally", "neuron +tired"):
        assert re.search(rf"^{each} +\S+tally.py ", listed, re.MULTILINE)
    label = json.loads(answer)["label"]
    node = json.loads((tmp_path / "repository/taps/1/bundle.json").read_text())["spec"]["nodes"][1]
    assert (node["type"], node["parameters"]["slow"]) == ("Neuron", "per_neuron")

    serve = f"{serve} --port 0 --engine reference"
    variables = {**os.environ, "SPIKESERVE_PLUGINS": "", "PATH": f"{environment.home}/bin:{os.environ['PATH']}"}
    with subprocess.Popen(serve.split(), cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True) as process:
        service = Process(process)
        listening = service.wait_for("listening")
        service.wait_for("model_ready")
        (lab / "pyproject.toml").write_text(block_with(page, "toml", "entry-points"))
        environment.add(lab)
        ask = ask.replace(LOCAL, f"{listening['host']}:{listening['port']}")
        done = environment.run(cwd=tmp_path, program=("-c", ask))
        assert done.stdout == f"{label}\n", done.stderr
        process.send_signal(signal.SIGTERM)
        assert service.ended() == 0
    refused = environment.run("fit", "--neuron", "tyred", cwd=tmp_path).stderr
    assert (
        "neuron: input should be 'IF', 'LIF', 'CubaLIF', 'ALIF', 'CubaALIF', 'AdLIF' or 'tired', got 'tyred'" in refused
    )


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


def test_the_client_is_imported_or_says_what_lacks(client: Environment, server: Environment, tmp_path: Path) -> None:
    program = ("-c", "from spikeserve import AsyncClient, Client, events; print(Client.__name__)")
    assert client.run(cwd=tmp_path, program=program).stdout == "Client\n"
    last_line = server.run(cwd=tmp_path, program=program).stderr.splitlines()[-1]
    assert last_line.startswith("ImportError: AsyncClient needs the extra client: pip install 'spikeserve[client]'")


@pytest.mark.deep
def test_training_and_its_library_are_found_beside_a_users_own_packages(server: Environment, own: Path) -> None:
    # The packages of training are those of this environment, behind the wheel's own.
    here = next(path for path in sys.path if Path(path).name == "site-packages")
    program = "from spikeserve.training.library import LIF; print(LIF(3, decay=0.5))"
    done = server.run(cwd=own, program=("-c", program), PYTHONPATH=f"{own}:{here}")
    assert done.stdout.startswith("LIF("), done.stderr
    done = server.run("evaluate", "nothing", cwd=own, PYTHONPATH=here)
    assert done.stderr == "error: run: 'nothing' is not a run's folder, expected one with config.toml\n"
