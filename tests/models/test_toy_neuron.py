"""A neuron that nobody has heard of: every part of the product takes it, and none but its program knows it."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spikeserve import Client, SessionState
from spikeserve.models.coding import DenseInputs
from spikeserve.models.coding.records import make_records
from spikeserve.models.engines import ENGINES, State, create
from spikeserve.models.engines.blob import from_bytes, to_bytes
from spikeserve.models.spec.network import Network
from tests.bundles import publish
from tests.networks import network_of, task
from tests.same import EVERYTHING
from tests.serving import ROOT, running

STEPS = 6
# Its states are called as no other neuron's; its parameters, as two outputs of an ONNX graph are.
TOY = {
    "states": {"zest": "raster", "fatigue": 0.0},
    "step": [
        "u = 0.5 * zest + current - membrane * fatigue",
        "s = fire(u, raster)",
        "fatigue = 0.75 * fatigue + hold(s)",
        "zest = u - raster * hold(s)",
    ],
    "spikes": "s",
}
RASTER = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0], [1, 1]], np.float32)  # (time_steps, inputs)


def toy() -> Network:
    """Two units, each into a toy neuron of its own, whose thresholds are 1 and 0.5."""
    return network_of(
        [
            {"type": "Linear", "name": "fc", "in_features": 2, "out_features": 2, "bias": False},
            {"type": "Neuron", "name": "out", "program": TOY, "parameters": {"membrane": 0.25, "raster": "per_neuron"}},
        ],
        {"fc.weight": [[1, 0], [0, 1]], "out.raster": [1, 0.5]},
        **task(
            2,
            STEPS,
            ["left", "right"],
            "spikes",
            events={"step_us": 1000, "window_steps": 2, "sensor": [2], "polarity": "merged"},
        ),
    )


def by_hand() -> Iterator[tuple[list[int], list[float], list[float]]]:
    """Yield the spikes, `zest` and `fatigue` of both neurons after each step; few bits, so that nothing rounds."""
    thresholds = [1.0, 0.5]
    zest, fatigue = [*thresholds], [0.0, 0.0]
    for currents in RASTER.tolist():
        u = [0.5 * z + i - 0.25 * f for z, i, f in zip(zest, currents, fatigue, strict=True)]
        s = [int(each >= h) for each, h in zip(u, thresholds, strict=True)]
        fatigue = [0.75 * f + each for f, each in zip(fatigue, s, strict=True)]
        zest = [each - h * fired for each, h, fired in zip(u, thresholds, s, strict=True)]
        yield s, zest, fatigue


SPIKES, ZEST, FATIGUE = (np.array(values) for values in zip(*by_hand(), strict=True))
COUNTS = SPIKES.sum(axis=0).tolist()


def inputs(first: int = 0, end: int = STEPS) -> DenseInputs:
    return DenseInputs(RASTER[first:end, np.newaxis], end - first)


def test_it_fires_and_rests() -> None:
    assert 0 < SPIKES.mean() < 1
    assert COUNTS[0] != COUNTS[1]


@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_engine_runs_it_whole_and_cut_by_way_of_bytes(engine: str) -> None:
    network, bundle = toy(), hashlib.sha256(b"toy").hexdigest()
    result, state = create(engine, network).run(inputs(), record=EVERYTHING)
    assert result.rasters["out"][:, 0].tolist() == SPIKES.tolist()
    assert result.membranes["out"][:, 0].tolist() == ZEST.tolist()
    assert state.arrays["out.fatigue"][0].tolist() == FATIGUE[-1].tolist()
    assert State.rest(network, 1).arrays["out.zest"].tolist() == [[1, 0.5]]
    after, fired = State.rest(network, 1), []
    for first, end in ((0, 1), (1, 4), (4, STEPS)):
        after = from_bytes(to_bytes(after, bundle), network, bundle)
        part, after = create(engine, network).run(inputs(first, end), after, record=EVERYTHING)
        fired += part.rasters["out"][:, 0].tolist()
    assert fired == SPIKES.tolist()
    assert after.arrays["out.zest"].tobytes() == np.asarray(state.arrays["out.zest"]).tobytes()


def test_a_servers_session_takes_its_state_along(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    t, unit = RASTER.nonzero()
    records = make_records(t * 1000, unit)
    with running(tmp_path, "--engine", "reference") as process, Client(process.url) as client:
        assert client.predict([RASTER.tolist()])[0].spike_counts.tolist() == COUNTS
        with client.session() as session:
            session.send(records[:4])
            moved = SessionState.from_json(session.state().to_json())
        assert moved.window == 1
        assert [*client.stream(records, state=moved)][-1].spike_counts == COUNTS


# Where the name of a named neuron's state stands in the product, and what it is there.
ELSEWHERE = {
    "a field of a node, of the same name": (
        *("plugins/report/complexity/neuron_operations.py", "plugins/nir/dialects.py"),
        *("plugins/frameworks/norse.py", "plugins/frameworks/sinabs.py"),
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
