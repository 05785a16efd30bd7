"""Each constant that says a size: what it just accepts and just refuses, or why no input meets it."""

import ast
import os
import re
import tomllib
from collections.abc import Callable
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from spikeserve.models.engines.readout import check_spikes
from spikeserve.models.engines.state import State, check_ages
from spikeserve.models.spec.connections import Linear
from spikeserve.models.spec.events import EventBinning
from spikeserve.models.spec.neurons import IF
from spikeserve.models.spec.shapes import Reshape
from spikeserve.plugins.frameworks.conversion.onnx_file import read_onnx
from spikeserve.plugins.frameworks.entry import renamed
from spikeserve.service import keys
from spikeserve.service.inference.protocols.v2.decode import _length
from spikeserve.service.inference.protocols.v2.parsing import parse
from spikeserve.service.inference.protocols.v2.schemas import IndexRequest, InputTensor
from spikeserve.service.inference.protocols.v2.tensors import to_float32
from spikeserve.training.config import NetworkConfig
from spikeserve.training.data.audio import read_wav
from spikeserve.training.data.binning import read_recording
from spikeserve.training.fit.architecture import _checked
from spikeserve.training.importers.builder import require_size
from spikeserve.training.importers.options import _events
from tests.sources import ROOT, files, module_name

EVENTS = b'{"step_us": 1, "sensor": [2]}'
SIZE = re.compile(r"(^|_)(MAX|MOST|MIN|LEAST|LONGEST|LARGEST|HIGHEST|BYTES)(_|$)")


def _file(size: int, content: bytes = b"") -> Path:
    """Return a file of so many bytes in the working directory: the content, and then spaces, or zeros after nothing."""
    path = Path("sized.bin")
    path.write_bytes(content.ljust(size) if content else b"")
    os.truncate(path, size)
    return path


def _key(letters: int) -> None:
    if keys.main(["a" * letters]):
        raise ValueError("NAME is refused")


# Where a bound is, what meets it with a size, and what says that the size is too large.
BOUNDS: dict[str, tuple[Callable[[int], object], str]] = {
    "models.engines.readout.MAX_SPIKES": (lambda n: check_spikes("out", n), "its threshold is too low for"),
    "models.engines.state.MOST_STEPS": (lambda n: check_ages(State(np.array([n]), {}), 1), "a sample's steps are"),
    "models.spec.events.MAX_STEP_US": (lambda n: EventBinning(step_us=n, sensor=(2,)), "step_us"),
    "models.spec.node_base.MAX_INPUTS": (lambda n: IF(name="x", inputs=("a",) * n), "inputs"),
    "models.spec.parameters.MAX_STEPS": (lambda n: EventBinning(step_us=1, sensor=(2,), window_steps=n), "_steps"),
    "models.spec.shapes.MAX_AXES": (lambda n: Reshape(name="x", shape=(1,) * n), "at most 6 items"),
    "models.spec.sparse.MOST_PLACES": (
        lambda n: Linear(name="x", in_features=4, out_features=-(-n // 4), nonzero=1), "nonzero is",
    ),
    "service.inference.protocols.v2.decode.MAX_DIGITS": (lambda n: _length("1".zfill(n), 1), "the length of the body"),
    "service.inference.protocols.v2.parsing.MAX_BRACKETS": (lambda n: parse(b"[" * n, IndexRequest), "lists and"),
    "service.inference.protocols.v2.parsing.MAX_QUOTES": (lambda n: parse(b'"' * n, IndexRequest), "quotation marks"),
    "service.inference.protocols.v2.schemas.MAX_AXES": (
        lambda n: InputTensor(name="x", shape=[1] * n, datatype="FP32", data=[1]), "at most 8 items",
    ),
    "service.inference.protocols.v2.tensors.MAX_EXACT": (lambda n: to_float32(np.array([-n]), "x"), "x holds -"),
    "service.keys.MAX_NAME": (_key, "NAME is refused"),
    "training.importers.options.MAX_EVENTS_BYTES": (lambda n: _events(f"@{_file(n, EVENTS)}", ""), "cannot be read"),
    "training.config.MAX_ARCHITECTURE": (lambda n: NetworkConfig(architecture="1" * n), "at most 4096 characters"),
    "training.data.audio.MAX_BYTES": (lambda n: read_wav(_file(n)), "expected at most"),
    "training.data.binning.MAX_FILE_BYTES": (lambda n: read_recording(_file(n)), "expected at most"),
    "training.fit.architecture.MAX_DELAY": (lambda n: _checked(n, "D"), "is a delay of"),
    "training.importers.builder.MAX_VALUES": (lambda n: require_size("it", (n,)), "it has shape"),
    "plugins.frameworks.conversion.onnx_file.MAX_BYTES": (lambda n: read_onnx(_file(n)), "expected at most"),
    "plugins.frameworks.entry.MAX_MAP_BYTES": (lambda n: renamed({}, str(_file(n, b"{}"))), "cannot be"),
}  # fmt: skip

# Why an input meets none of these as a bound, or which test meets it by its number.
REASONS: dict[str, str] = tomllib.loads((ROOT / "tests/sizes_without_bounds.toml").read_text())


def sizes() -> set[str]:
    """Return the whole numbers of modules whose names say a size, such as "models.spec.shapes.MAX_AXES"."""
    found = set()
    for file in files("models", "service", "training", "plugins", "spikeserve"):
        for node in ast.parse((ROOT / file).read_text()).body:
            match node:
                case ast.Assign([ast.Name(name)]) if SIZE.search(name) and "_sync" not in file:
                    module = module_name(file).removeprefix("spikeserve.")
                    if type(getattr(import_module(f"spikeserve.{module}"), name)) is int:
                        found.add(f"{module}.{name}")
    return found


def is_named(size: str, text: str) -> bool:
    """Return whether a test's text has a constant and the module that it is of."""
    module, _, name = size.rpartition(".")
    package, _, last = f"spikeserve.{module}".rpartition(".")
    places = (f"spikeserve.{module} import", f"from {package} import {last}", f'"spikeserve.{size}"')
    return any(place in text for place in places) and re.search(rf"\b{name}\b", text) is not None


def test_each_constant_of_a_size_is_met_by_a_test_or_has_a_reason() -> None:
    reasons = [size for listed in REASONS.values() for size in listed.split()]
    texts = [(ROOT / file).read_text() for file in files("tests") if file != "tests/test_bounds.py"]
    without = {size for size in sizes() - set(BOUNDS) if not any(fnmatchcase(size, each) for each in reasons)}
    assert {size for size in without if not any(is_named(size, text) for text in texts)} == set()


@pytest.mark.parametrize("size", BOUNDS)
def test_a_size_is_taken_at_its_bound_not_beyond(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module, _, name = size.rpartition(".")
    meet, sentence = BOUNDS[size]
    bound = getattr(import_module(f"spikeserve.{module}"), name)
    said = []
    for each in (bound, bound + 1):
        try:
            meet(each)
        except Exception as error:
            said.append(str(error))
        else:
            said.append("")
    assert [sentence in each for each in said] == [False, True], said
