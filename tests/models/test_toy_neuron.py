"""A neuron that nobody has heard of: every part of the product takes it, and none but its program knows it.

What it gives by hand is a row of tests/contracts/nodes.py, "a program".
"""

import re
from pathlib import Path

import pytest

from tests.serving import ROOT

# Where the name of a named neuron's state stands in the product, and what it is there.
ELSEWHERE = {
    "a field of a node, of the same name": (
        *("plugins/report/complexity/neuron_operations.py", "plugins/nir/dialects.py"),
        *("plugins/frameworks/norse.py", "plugins/frameworks/sinabs.py", "training/fit/modules.py"),
    ),
    "what is recorded of any neuron, its program's membrane": (
        *("plugins/onnx/graph.py", "plugins/onnx/engine.py"),
        *("service/catalog/limits.py", "service/inference/scheduling/query.py"),
        *("service/inference/protocols/native/render.py", "service/http/page/main.js", "service/http/page/versions.js"),
        "service/http/page/race.js",
    ),
    "a word for people": (
        *("service/http/page/membrane.js", "training/fit/losses.py", "plugins/report/plots/sample.py"),
        *("plugins/frameworks/compare.py", "plugins/frameworks/tracer.py"),
        "plugins/nir/export.py",
    ),
}


def sources() -> dict[str, str]:
    """Return the product's sources, path to text."""
    files = [path for room in ("models", "plugins", "training", "service") for path in (ROOT / room).rglob("*.*")]
    files = [path for path in [*files, *(ROOT / "spikeserve").glob("*.py")] if path.suffix in (".py", ".js")]
    return {str(path.relative_to(ROOT)): path.read_text() for path in files}


def test_no_source_but_the_named_neurons_names_a_state() -> None:
    states = {*re.findall(r"\.state\(\"(\w+)\"", (ROOT / "models/neurons/named.py").read_text())}
    assert {"membrane", "synapse", "real"} < states
    quoted = re.compile(rf"[\"'.]({'|'.join(sorted(states))})[\"']")
    found = {path for path, text in sources().items() if quoted.search(text)}
    found = {path for path in found if not path.startswith(("models/spec/", "models/neurons/named.py"))}
    assert found == {path for paths in ELSEWHERE.values() for path in paths}


NAMED, SPEC = "models/neurons/named.py", "models/spec"
MAPPINGS = ("plugins/frameworks/", "plugins/nir/")  # what importers make of it is a change of its own
# What finds each of four examples in the product's sources, and where it is.
ADDITIONS = {
    "a charge": (r"\bTRUNCATED\b", {f"{SPEC}/rules.py", NAMED}),
    "a neuron with a state of its own": (
        r"\bRF\b",
        {f"{SPEC}/neurons.py", f"{SPEC}/nodes.py", f"{SPEC}/neuron_parameters.py", NAMED},
    ),
    "a connection that is a window": (
        r"\bSumPool2d\b",
        {f"{SPEC}/pools.py", f"{SPEC}/nodes.py", "training/fit/architecture.py", "training/importers/connections.py"},
    ),
    "an operation": (
        r"\"sqrt\"",
        {f"{SPEC}/expressions.py", "models/neurons/operations.py"}
        | {"models/engines/event/steps.py", "models/engines/torch/operations.py", "plugins/onnx/operations.py"}
        | {f"training/fit/operators/{each}.py" for each in ("derivation", "triton_code")}
        | {"training/library.py", "plugins/frameworks/terms.py", "plugins/c/operations.py"},
    ),
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_an_addition_stands_in_the_files_that_contributing_names(kind: str) -> None:
    pattern, expected = ADDITIONS[kind]
    found = {path for path, text in sources().items() if re.search(pattern, text)}
    assert {path for path in found if path in expected or not path.startswith(MAPPINGS)} == expected
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert [path for path in expected if path not in page and Path(path).name not in page] == []
