"""Each sentence that the product raises stands in a test, but for those of a list that only gets shorter."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import spikeserve
from spikeserve.connection import opened
from spikeserve.models.engines.blob import from_bytes
from spikeserve.models.spec import Coding
from spikeserve.models.spec.narrow import _read
from spikeserve.plugins.ray.parts import inputs
from spikeserve.requests import _array_in
from spikeserve.service.inference.sessions.messages import StreamOptions
from spikeserve.service.inference.sessions.session import binning_of
from spikeserve.training.config import TrainingConfig
from spikeserve.training.fit.folder import RunFolder
from spikeserve.training.fit.modules import Delay
from tests.networks import toy
from tests.sources import ROOT, files

UNTESTED = ROOT / "tests/untested_sentences.txt"  # a file and the longest constant part of a sentence, on each line
ENOUGH = 20  # characters of a sentence's longest part, or all of a shorter one, that have to stand in a test
FEW = 8  # characters that are no sentence


def strings(node: ast.AST) -> Iterator[str]:
    """Yield the constant texts below a node, with what a regular expression escapes as it is matched."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield re.sub(r"\\([^\w\n])", r"\1", each.value)


def raised() -> Iterator[tuple[str, str]]:
    """Yield the file of each raised sentence, and its longest constant part."""
    for file in files("models", "service", "training", "plugins", "spikeserve"):
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and "_sync" not in file:
                longest = max(strings(node.exc), key=len, default="").strip(" ,:;'")
                fault = ast.unparse(node.exc.func) == "TypeError"  # of code that adds a node without its row
                if len(longest) > FEW and " " in longest and not fault:
                    yield file, longest


def test_each_raised_sentence_stands_in_a_test_or_waits_in_the_list_for_one() -> None:
    tested = "\n".join(text for file in files("tests") for text in strings(ast.parse((ROOT / file).read_text())))
    parts = {each: {each[1][at : at + ENOUGH] for at in range(max(1, len(each[1]) - ENOUGH + 1))} for each in raised()}
    every = set().union(*parts.values())
    known = {piece for at in range(len(tested)) if (piece := tested[at : at + ENOUGH]) in every}
    untested = {
        f"{file}: {part}"
        for (file, part), pieces in parts.items()
        if not pieces & known and (len(part) >= ENOUGH or part not in tested)
    }
    waiting = UNTESTED.read_text().splitlines()
    assert sorted(untested - {*waiting}) == []  # name it in a test; do not add it to the list
    assert sorted({*waiting} - untested) == []  # tested by now, or gone: take it out of the list


LOWEST = np.full((1, 1), -128, np.int8)
SPEC = toy(Coding.SPIKES).spec
LONG = SPEC.model_copy(update={"input": SPEC.input.model_copy(update={"shape": (2**20,)})})


@pytest.mark.parametrize(
    ("content", "call", "sentence"),
    [
        (b"", lambda _: binning_of(SPEC, StreamOptions()), "step_us is missing: this model does not say how long"),
        (b"", lambda _: binning_of(LONG, StreamOptions(step_us=1)), "has no streams of events: sensor is 1048576, "),
        (b"", lambda _: from_bytes(b"", toy(), "00"), "state: its first bytes are b'', expected"),
        (b"", lambda _: _read("w", 8, (1, 1), LOWEST, np.zeros(1, np.int16), None), "to 127, as weight_bits is 8"),
        (b"", lambda _: Delay(0, longest=1), "longest 1, expected sizes and steps above 0"),
        (b"", lambda _: opened(None), "the connection is closed"),
        (b"", lambda _: spikeserve.nothing, "module 'spikeserve' has no attribute 'nothing'"),
        (b"", lambda path: inputs([str(path)], ""), "is no file or folder of files that end in"),
        (b"", lambda path: inputs([str(path.rename(path.with_suffix(".npy")))] * 2, ""), "expected other names"),
        (b"x", _array_in, "metrics.json': cannot be read as .npy: "),
        (b"[", lambda path: TrainingConfig.read(path, {}), "metrics.json' is not TOML: "),
        (b"[]", lambda path: RunFolder(path.parent).metrics, "cannot be read, expected JSON as fit wrote it, with"),
        (b"\xff", lambda path: RunFolder(path.parent).metrics, "is not UTF-8, expected the file as fit wrote it"),
        (b"", lambda path: RunFolder(path.with_name("none")).metrics, "holds no metrics.json, expected a run that ha"),
    ],
)  # fmt: skip
def test_a_fault_is_a_sentence(tmp_path: Path, content: bytes, call: Callable[[Path], object], sentence: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(Exception, match=re.escape(sentence)):
        call(path)
