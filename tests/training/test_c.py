"""The C file of a bundle: the reference's bits, the service's states, and nothing but a compiler."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from benchmarks.targets import TARGETS
from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import DenseInputs, EventInputs
from spikeserve.models.engines.base import Record
from spikeserve.models.engines.blob import STEPS, from_bytes, to_bytes
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import State
from spikeserve.models.errors import InvalidInput, InvalidSpec
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.training.targets.c.compiled import FLAGS, CompiledC
from spikeserve.training.targets.c.source import write
from spikeserve.training.targets.c.verify import against_reference
from tests.models.test_blob import sealed
from tests.networks import Case, dyadic_cases, network_of, task, toy
from tests.pages import block_with
from tests.same import assert_same_state
from tests.service.sessions.test_values import apart
from tests.training.command_line import ROOT, training_here

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler: apt-get install gcc")
PRETRAINED = ROOT / "models/pretrained"
QUICK = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror")
# A compiler that may fuse a product and a sum, as it does outside of -std=c99 for a processor that can.
FUSING = ("-O2", "-march=native", "-Wall", "-Wextra", "-Werror")
drawn = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@drawn
@given(dyadic_cases())
def test_drawn_networks_have_the_references_bits_also_when_c_and_server_take_turns(case: Case) -> None:
    engines = (CompiledC(case.network, flags=QUICK), ReferenceEngine(case.network))
    wanted, before = engines[1].run(case.inputs, record=Record.RASTER)
    state: State | None = None
    rasters = []
    for turn, part in enumerate(case.parts):
        result, state = engines[turn % 2].run(part, state, record=Record.RASTER)
        rasters.append(result.rasters)
    np.testing.assert_array_equal(result.spike_counts, wanted.spike_counts)
    np.testing.assert_array_equal(result.readout, wanted.readout)
    for name, raster in wanted.rasters.items():
        np.testing.assert_array_equal(np.concatenate([each[name] for each in rasters]), raster, err_msg=name)
    assert state is not None
    assert_same_state(state, before)


@pytest.mark.parametrize("flags", [FLAGS, FUSING], ids=["c99", "fusing"])
@pytest.mark.parametrize("name", ["digits", "braille"])
def test_the_bundles_that_ship_have_the_references_bits(name: str, flags: tuple[str, ...]) -> None:
    bundle = Bundle.read(PRETRAINED / name / "1")
    difference = against_reference(bundle.network, CompiledC(bundle.network, flags=flags), bundle.golden.inputs)
    assert not difference.any
    assert difference.neuron_steps > 10_000


@pytest.mark.parametrize("target", TARGETS)
def test_other_processors_and_compilers_give_the_same_bits(target: str) -> None:
    made = TARGETS[target]
    if not made.is_here:
        pytest.skip(f"{made.compiler} or its emulator is not installed: ./scripts/install-tools")
    for name in ("digits", "braille"):
        bundle = Bundle.read(PRETRAINED / name / "1")
        compiled = CompiledC(bundle.network, [made.compiler], made.flags, made.emulator)
        assert not against_reference(bundle.network, compiled, bundle.golden.inputs[:1]).any


def test_the_example_reads_its_picture_on_a_board(tmp_path: Path) -> None:
    if not TARGETS["Cortex-M7, gcc"].is_here:
        pytest.skip("arm-none-eabi-gcc or qemu-system-arm is not installed: ./scripts/install-tools")
    page = (ROOT / "examples/cortex-m/main.c").read_text().partition("*/")[0].replace("\\\n", "")
    export, *commands = re.findall(r"^     (\S.*)$", page, re.MULTILINE)
    written = shlex.split(export.replace("build", str(tmp_path)))[1:]
    assert training_here(*written).returncode == 0
    for command in commands:
        words = shlex.split(command.replace("build", str(tmp_path)))
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "7, of spike counts 0 0 0 0 0 0 0 7 0 0\n"


def test_events_give_the_bits_of_the_raster_that_they_stand_for() -> None:
    bundle = Bundle.read(PRETRAINED / "braille/1")
    dense = bundle.golden.inputs
    runs = [CompiledC(bundle.network).run(inputs) for inputs in (dense, EventInputs.of(dense))]
    np.testing.assert_array_equal(runs[0][0].readout, runs[1][0].readout)
    assert_same_state(runs[0][1], runs[1][1])


def random_floats(count: int) -> np.ndarray:
    """Draw float32 of every size, and those where operations have corners."""
    bits = np.random.default_rng(0).integers(0, 2**32, count, np.uint32).view(np.float32)
    finite = bits[np.isfinite(bits)]
    corners = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.5, 8388607.5, 8388608.0, -8388609.0, 1e-45, -1e-45, 88.7, -103.9]
    return np.concatenate([finite[: count - len(corners)], np.array(corners, np.float32)]).astype(np.float32)


@pytest.mark.parametrize(
    "step", ["exp(v)", "sqrt(v)", "floor(v)", "trunc(v)", "abs(v)", "-v", "minimum(v, 0.5)", "1 / v"]
)
def test_each_operation_rounds_as_numpys(step: str) -> None:
    values = random_floats(2000)
    lines = [f"o = {step}", "y = select(o == o, minimum(maximum(o, -1e38), 1e38), -7)", "v = hold(v) + 0 * current"]
    program = {"states": {"v": "begins"}, "step": lines, "output": "y"}
    nodes = [{"type": "Integrator", "name": "out", "program": program, "parameters": {"begins": "per_neuron"}}]
    labels = [str(place) for place in range(len(values))]
    fields = task(len(values), 1, "a", readout="last") | {"labels": labels}
    network = network_of(nodes, {"out.begins": values}, **fields)
    inputs = DenseInputs(np.zeros((1, 1, len(values)), np.float32), 1)
    found, wanted = (engine.run(inputs)[0].readout for engine in (CompiledC(network), ReferenceEngine(network)))
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


SANITIZED = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")


def refusals(network: Network, attempts: list[bytes]) -> list[int]:
    """Give what `state_load` returns for each of some bytes; two steps follow, which no sanitizer may object to."""
    compiled = CompiledC(network)
    program = Path(compiled.program[-1])
    source = program.with_name("main.c").read_text()
    head, _, _ = source.replace("#define SERVED_LAYER", "#define NO_LAYER").partition("int main(void)")
    direct = network.spec.coding is Coding.DIRECT
    step = "served_present(&net, values); served_step(&net);" if direct else "served_step(&net, values);"
    sizes = ", ".join(str(len(each)) for each in attempts)
    program.with_name("attack.c").write_text(
        f"{head}int main(void) {{\n  static uint8_t bytes[SERVED_STATE_BYTES + 1];\n"
        f"  const size_t sizes[] = {{{sizes}}};\n  size_t i;\n"
        "  (void)units, (void)state;\n"
        "  for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {\n"
        "    int32_t answer;\n    served_init(&net);\n    read_all(bytes, sizes[i]);\n"
        f"    answer = served_state_load(&net, bytes, sizes[i]);\n    {step} {step}\n"
        "    give(&answer, sizeof answer);\n  }\n"
        "  return 0;\n}\n"
    )
    made = ["cc", *FLAGS, *SANITIZED, "-o", "attack", "attack.c"]
    subprocess.run(made, check=True, cwd=program.parent)
    done = subprocess.run([program.with_name("attack")], input=b"".join(attempts), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.int32).tolist()


def test_bytes_that_are_no_state_of_this_bundle_are_refused() -> None:
    network = network_of(
        [
            {"type": "Delay", "name": "late", "delay": 3},
            {"type": "Scale", "name": "by_step", "scale": "per_neuron", "steps": 6},
            {"type": "LIF", "name": "out", "decay": 0.5},
        ],
        {"by_step.scale": np.ones((6, 2))},
        **task(2, 3, "ab", "spikes"),
    )
    _, state = ReferenceEngine(network).run(DenseInputs(np.ones((5, 1, 2), np.float32), 5))
    right = to_bytes(state, "0" * 64)
    flipped = [right[:place] + bytes([right[place] ^ 1]) + right[place + 1 :] for place in range(0, len(right), 7)]
    cut = [right[:size] for size in range(0, len(right), 31)]
    others = [to_bytes(state, "1" * 64), right + b"\0"]
    aged = [to_bytes(State(np.array([steps]), state.arrays), "0" * 64) for steps in (6, 7, 100_000, -1, 0)]
    answers = refusals(network, [right, *aged, *flipped, *cut, *others])
    assert answers == [0, 0] + [-1] * (len(answers) - 2)  # steps past the sixth are none


NUMBERS = (np.nan, np.inf, -np.inf, 3e38, -1.0, 0.5, 1.0, 2.0, 2.0**24 + 2, 2.0**54, 100_000.0)


@settings(drawn, max_examples=6)
@given(dyadic_cases(), st.randoms(use_true_random=False))
def test_each_number_of_a_state_is_checked_as_in_the_service(case: Case, draw: Random) -> None:
    _, after = ReferenceEngine(case.network).run(case.inputs)
    state = State.joined([after, State.rest(case.network, 1)])[:1]
    attempts, allowed = [to_bytes(state, "0" * 64)], [{0}]
    for _ in range(80):
        arrays = {STEPS: state.steps.copy(), **{key: each.copy() for key, each in state.arrays.items()}}
        name = draw.choice([key for key, each in arrays.items() if each.size])
        with np.errstate(all="ignore"):
            value = np.array(draw.choice(NUMBERS)).astype(arrays[name].dtype)
        arrays[name].flat[draw.randrange(arrays[name].size)] = value
        attempts.append(sealed(save(arrays), "0" * 64))
        expected = -1
        with suppress(InvalidInput):
            from_bytes(attempts[-1], case.network, "0" * 64)
            expected = 0
        # Of what waits in a Delay, C refuses also what no run leaves there: it has fewer bits for that.
        allowed.append({expected, -1} if name.endswith(".line") else {expected})
    assert all(answer in each for answer, each in zip(refusals(case.network, attempts), allowed, strict=True))


def test_raw_values_become_the_currents_of_the_service(tmp_path: Path) -> None:
    declared = {
        "shape": [2],
        "low": [0, -1],
        "high": [16, 1],
        "scale": [0.3, 2],
        "offset": [0.1, 0],
        "resolution": 0.125,
    }
    nodes = [{"type": "IF", "name": "out"}]
    network = network_of(nodes, {}, input=declared, time_steps=1, labels=["a", "b"])
    source = write(network, "n", "0" * 64)
    (tmp_path / "n.c").write_text(source.code)
    (tmp_path / "n.h").write_text(source.header)
    raw = np.random.default_rng(1).uniform([0, -1], [16, 1], (200, 2)).astype(np.float32)
    rows = ",".join(f"{value.hex()}f" for value in raw.astype(float).ravel().tolist())
    (tmp_path / "main.c").write_text(
        f'#include <stdio.h>\n#include "n.h"\nstatic const float raw[] = {{{rows}}};\n'
        "int main(void) {\n  float x[2], beyond[] = {17.0f, 0.0f};\n  int i;\n"
        "  for (i = 0; i < 200; i++) { if (n_normalise(raw + 2 * i, x)) return 1; fwrite(x, 4, 2, stdout); }\n"
        "  return n_normalise(beyond, x) == -1 ? 0 : 2;\n}\n"
    )
    subprocess.run(["cc", *FLAGS, "-o", "n", "main.c", "n.c"], check=True, cwd=tmp_path)  # noqa: S607
    given = subprocess.run([tmp_path / "n"], capture_output=True, check=True).stdout
    np.testing.assert_array_equal(np.frombuffer(given, np.float32).reshape(-1, 2), network.spec.input.normalise(raw))


def test_a_bundle_that_reads_a_sample_whole_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="expected another: C reads step by step"):
        write(apart(), "n", "0" * 64)


def test_the_commands_write_a_file_that_the_pages_program_runs_and_compare_it(tmp_path: Path) -> None:
    done = training_here("export", "c", "digits", tmp_path / "build")
    assert done.returncode == 0, done.stderr
    (line,) = re.findall(r"Try: (.*)", done.stdout)
    subprocess.run(line.split(), check=True, cwd=tmp_path)
    assert "#include <" not in (tmp_path / "build/digits.c").read_text().replace("#include <float.h>", "")
    page = (ROOT / "docs/edge.md").read_text()
    (tmp_path / "main.c").write_text(block_with(page, "c", "int main"))
    command = ["sh", "-ec", block_with(page, "sh", "main.c")]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "7\n"
    verified = training_here("verify", PRETRAINED / "digits/1", "--against", "c")
    assert verified.returncode == 0
    assert "\n0 of " in f"\n{verified.stdout}"
    assert "neuron-steps, 0 values of the states and 0 of the answers differ" in verified.stdout


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    done = training_here("verify", PRETRAINED / "digits/1", "--against", "c")
    assert (done.returncode, done.stderr) == (
        1,
        "error: the C compiler is 'no-such-compiler', which is not installed; set CC to one that is\n",
    )


def test_weights_of_few_bits_take_as_few_bytes() -> None:
    weights = np.random.default_rng(0).integers(-7, 8, (8, 100)).astype(np.float32) / 16
    fields = task(100, 2, "abcdefgh", "spikes")
    nodes: list[dict[str, Any]] = [
        {"type": "Linear", "name": "fc", "in_features": 100, "out_features": 8, "bias": False, "weight_bits": 4},
        {"type": "IF", "name": "out"},
    ]
    network = network_of(nodes, {"fc.weight": weights}, **fields)
    assert "uint8_t n0_weight[400]" in write(network, "n", "0" * 64).code
    inputs = DenseInputs((np.random.default_rng(1).random((20, 3, 100)) < 0.2).astype(np.float32), 20)
    assert not against_reference(network, CompiledC(network), inputs).any


def test_of_synapses_with_delays_of_their_own_only_those_are_written_that_are_not_0() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 500)).astype(np.float32) * (rng.random((64, 500)) < 0.04)
    nodes: list[dict[str, Any]] = [
        {"type": "Delay", "name": "seen", "taps": [*range(25)]},
        {"type": "Linear", "name": "fc", "in_features": 500, "out_features": 64, "bias": False},
        {"type": "LIF", "name": "out", "decay": 0.9},
    ]
    network = network_of(nodes, {"fc.weight": weight}, **task(20, 30, 64, "spikes"))
    assert f"n1_output[{np.count_nonzero(weight)}]" in write(network, "n", "0" * 64).code
    inputs = DenseInputs((rng.random((30, 3, 20)) < 0.2).astype(np.float32), 30)
    assert not against_reference(network, CompiledC(network), inputs).any


@pytest.mark.parametrize("name", ["SIZE", "NET", "int", "3d", "header"])
def test_no_name_of_a_model_or_a_state_is_taken_for_a_part_of_the_file(name: str, tmp_path: Path) -> None:
    states = dict.fromkeys(("NET", "SIZE", "STEPS", "CONTENT", "int"), 0.0)
    step = [*(f"{each} = {each} + current" for each in states), "s = fire(NET, 1)"]
    nodes = [
        {"type": "Neuron", "name": "SUM", "program": {"states": states, "step": step, "spikes": "s"}, "parameters": {}}
    ]
    source = write(network_of(nodes, {}, **task(2, 3, "ab", "spikes")), name, "0" * 64)
    (tmp_path / f"{source.prefix}.h").write_text(source.header)
    (tmp_path / "n.c").write_text(source.code)
    subprocess.run(["cc", *QUICK, "-c", "n.c"], check=True, cwd=tmp_path)  # noqa: S607


def test_the_header_has_the_names_of_states_and_sizes() -> None:
    header = write(toy(), "my-net", "0" * 64).header
    assert "float n1_state_membrane[2];" in header
    assert "#define MY_NET_CLASSES 2" in header


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_convolution_that_is_computed_once_takes_weights_of_any_sizes(share: float) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 2, 3, 3)).astype(np.float32) * (rng.random((6, 2, 3, 3)) < share)
    weight[0, 0, 0, 0] = 40000  # of a table of narrower numbers, one is too large
    nodes: list[dict[str, Any]] = [
        {"type": "Conv2d", "name": "conv", "in_channels": 2, "out_channels": 6, "kernel_size": 3, "bias": False},
        {"type": "LIF", "name": "out", "decay": 0.5},
    ]
    fields = task([2, 4, 4], 5, 24, high=2)
    fields["input"]["resolution"] = 1.0  # so that sums are of whole numbers
    network = network_of([*nodes, {"type": "Flatten", "name": "flat"}], {"conv.weight": np.rint(weight)}, **fields)
    inputs = DenseInputs(rng.integers(0, 3, (1, 3, 2, 4, 4)).astype(np.float32), 5)
    assert not against_reference(network, CompiledC(network), inputs).any


SIZES = {"float": 4, "double": 8, "int64_t": 8, "int32_t": 4, "uint8_t": 1}


@pytest.mark.parametrize(("name", "most"), [("digits", 30_000), ("braille", 2_000)])
def test_arrays_that_are_never_needed_together_share_their_memory(name: str, most: int) -> None:
    header = write(Bundle.read(PRETRAINED / name / "1").network, name, "0" * 64).header
    struct = re.findall(r"^  (\w+) \w+\[(\d+)\];", header, re.MULTILINE)
    assert sum(SIZES[kind] * int(count) for kind, count in struct) < most
