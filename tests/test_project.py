"""What holds the project together: who may import whom, and that the lock and the image follow pyproject.toml."""

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.sources import PROJECT, ROOT, files, imports, module_name, requirements

MAY_IMPORT_TORCH = {f"models/engines/torch/{name}.py" for name in ("connections", "engine", "network", "operations")}
SHARED = ("models.door", "models.errors", "models.recordings")  # by the client too: they need NumPy alone
MAY_IMPORT_ONNX = {"plugins/onnx/graph.py", "plugins/onnx/operations.py"}


def run_python(program: str, *arguments: str) -> str:
    """Run a program in a process of its own, since this one has imported everything, and return what it printed."""
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


CODE = (
    "benchmarks",
    "conformance",
    "docs",
    "examples",
    "tests",
    *("models", "plugins", "service", "spikeserve", "training"),
)


def test_the_first_line_of_every_module_says_what_it_holds() -> None:
    modules = files(*CODE)
    says = re.compile(r'(#.*\n)*"""\S')
    assert [file for file in modules if not says.match((ROOT / file).read_text())] == []


RIDDLES = re.compile(r"Return (what|whatever) |Do the same|that there are not|None is none|\b(is|are) told\b")


def test_docstrings_and_comments_need_no_second_reading() -> None:
    found = [
        f"{file}: {line.strip()}"
        for file in files(*CODE)
        if file != "tests/test_project.py"
        for line in (ROOT / file).read_text().splitlines()
        if RIDDLES.search(line)
    ]
    assert found == []


def locked() -> dict[str, str]:
    """Return each requirement of the lock, name to its whole line, continuations joined and comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "requirements/serve.txt").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return {canonicalize_name(line.split("==")[0].strip()): line for line in lines}


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("models", {"plugins", "service", "spikeserve", "training"}),
        ("service", {"plugins", "spikeserve", "training", "torch"}),
        ("training", {"plugins", "service", "spikeserve"}),
        ("spikeserve", {"models", "plugins", "service", "training"}),
    ],
)
def test_a_package_never_imports_what_it_must_not_know(package: str, others: set[str]) -> None:
    assert {file: found for file in files(package) if (found := foreign(file) & others)} == {}


def foreign(file: str) -> set[str]:
    """Return the packages of which a file imports anything but what the client shares with models."""
    own = {module for module in imports(file) if module != "models" and not module.startswith(SHARED)}
    return {module.partition(".")[0] for module in own}


@pytest.mark.parametrize(("library", "allowed"), [("torch", MAY_IMPORT_TORCH), ("onnx", MAY_IMPORT_ONNX)])
def test_in_models_only_the_named_files_import_a_library_that_serving_lacks(library: str, allowed: set[str]) -> None:
    assert {file for file in files("models", "service", "plugins/onnx") if library in imports(file)} == allowed


def test_all_that_serves_imports_where_torch_and_onnx_are_missing() -> None:
    left_out = MAY_IMPORT_TORCH | MAY_IMPORT_ONNX | {"plugins/onnx/engine.py"}
    serving = files("models", "service", "plugins/gallery", "plugins/grpc", "plugins/local")
    modules = [f"spikeserve.{module_name(file)}" for file in serving if file not in left_out]
    run_python(
        "import importlib, sys\n"
        # Importing a name whose module is None is an ImportError.
        "for name in ('torch', 'onnx', 'spikeserve.training'): sys.modules[name] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)",
        *modules,
    )


def test_no_file_imports_a_package_by_its_folder_alone() -> None:
    # `models` for `spikeserve.models` works in a checkout, but not where the wheel is installed.
    folder = r"(models|plugins|service|training)\b[\w.]*"
    wrong = re.compile(rf"^ *(from {folder} import|import ([\w., ]*, )?{folder}( as \w+)?(,|$))", re.MULTILINE)
    everything = files(*CODE, "deploy")
    assert {file: line[0] for file in everything if (line := wrong.search((ROOT / file).read_text()))} == {}


def test_the_client_needs_numpy_httpx_and_websockets() -> None:
    assert {requirement.name for requirement in requirements("client")} == {"numpy", "httpx", "websockets"}
    # Each import of it is the standard library's, its own or one of those three, and so is what it has of models.
    found = {package for file in files("spikeserve") for package in foreign(file)}
    assert found - sys.stdlib_module_names == {"numpy", "httpx", "websockets", "spikeserve"}
    run_python(
        "import sys; sys.modules |= dict.fromkeys(('faery', 'pydantic', 'typing_extensions')); import spikeserve\n"
        "print(spikeserve.Client, spikeserve.read_events)"
    )


def test_the_engines_can_be_named_without_loading_torch_or_onnx() -> None:
    loaded = run_python("import sys, spikeserve.models.engines; print(*sys.modules)").split()
    assert "spikeserve.models.engines" in loaded
    assert {"torch", "onnx"} & set(loaded) == set()


def test_the_serve_extra_asks_for_no_training_library() -> None:
    unwanted = {requirement.name for requirement in requirements("train")} - {r.name for r in requirements("serve")}
    assert {"torch", "torchvision", "onnx", "onnxruntime", "scikit-learn"} <= unwanted
    assert unwanted & locked().keys() == set()
    assert not [name for name in locked() if name.startswith(("torch", "nvidia", "triton"))]


def test_the_lock_pins_every_requirement_by_hash_and_names_no_index() -> None:
    for name, line in locked().items():
        assert re.fullmatch(r"\S+==\S+( *; [^-]+)?( +--hash=sha256:[0-9a-f]{64})+ *", line), name
    assert "://" not in (ROOT / "requirements/serve.txt").read_text()


def test_the_lock_satisfies_every_range_of_the_serve_extra() -> None:
    lock = locked()
    for requirement in requirements("serve"):
        line = lock.get(canonicalize_name(requirement.name), "")
        assert line, f"{requirement.name} is not in the lock: run ./scripts/lock"
        version = Version(line.split("==")[1].split()[0])
        assert version in requirement.specifier, f"{requirement} is locked to {version}: run ./scripts/lock"


@pytest.mark.parametrize(("file", "extra"), [("gpu", "torch"), ("remote", "remote"), ("grpc", "grpc")])
def test_an_image_adds_what_the_extra_says(file: str, extra: str) -> None:
    lines = (ROOT / f"requirements/{file}.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == PROJECT["optional-dependencies"][extra]


def dockerfile() -> list[list[str]]:
    """Return the Dockerfile's instructions as words, continuations joined and comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line.split() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def test_the_image_copies_models_service_the_plugins_that_serve_the_command_and_requirements_alone() -> None:
    copied = set()
    for instruction, *words in dockerfile():
        if instruction in {"COPY", "ADD"} and not any(word.startswith("--from=") for word in words):
            copied |= {word.split("/")[0] for word in words[:-1] if not word.startswith("--")}
    assert copied == {"models", "plugins", "service", "spikeserve", "requirements"}
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert admitted == copied


def test_the_image_built_by_default_has_no_torch_and_no_root() -> None:
    # A stage begins with all the words of the stage that it is made from.
    stages: dict[str, list[list[str]]] = {}
    for words in dockerfile():
        if words[0] == "FROM":
            name, stages[words[3]] = words[3], list(stages.get(words[1], []))
        else:
            stages[name].append(words)
    copied = {name: {word for words in stage for word in words} for name, stage in stages.items()}
    assert list(stages)[-1] == "cpu"
    for target in ("cpu", "gpu"):
        users = [words[1] for words in stages[target] if words[0] == "USER"]
        assert users, target
        assert users[-1].split(":")[0] not in {"0", "root"}
    assert "--from=packages-gpu" in copied["gpu"]
    assert "--from=packages-gpu" not in copied["cpu"]


def test_the_reading_order_is_an_afternoons() -> None:
    section = (ROOT / "docs/architecture.md").read_text().partition("## Reading order")[2].partition("\n## ")[0]
    order = re.findall(r"^\d+\. `([^`]+)`", section, re.MULTILINE)
    assert 10 <= len(order) <= 15
    assert sum(len((ROOT / file).read_text().splitlines()) for file in order) <= 3500


def test_each_seam_is_as_the_page_writes_it() -> None:
    section = (ROOT / "docs/architecture.md").read_text().partition("## Seams")[2].partition("\n## ")[0]
    for seam in section.split("\n### ")[1:]:
        file, text = re.findall(r"`([\w/]+)\.py`", seam)[0], re.findall(r"```python\n(.*?)```", seam, re.DOTALL)[0]
        (written,) = ast.parse(text).body
        assert isinstance(written, ast.ClassDef)
        ours = getattr(import_module(f"spikeserve.{file.replace('/', '.')}"), written.name)
        for method in written.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [
                    each.arg for each in (*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs)
                ]
                assert arguments == list(inspect.signature(getattr(ours, method.name)).parameters)
