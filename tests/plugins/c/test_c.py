"""The C file of a bundle: the reference's bits, and nothing but a compiler."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.targets import TARGETS
from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import EventInputs
from spikeserve.models.errors import InvalidSpec
from spikeserve.models.spec.network import Network
from spikeserve.plugins.c.compiled import FLAGS, CompiledC
from spikeserve.plugins.c.source import write
from spikeserve.training.report.parity import against_reference
from tests.models.test_wide import layer, raster
from tests.networks import network_of, task
from tests.pages import block_with
from tests.service.sessions.test_values import apart
from tests.training.command_line import ROOT, training_here

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler: apt-get install gcc")
PRETRAINED = ROOT / "models/pretrained"
QUICK = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror")
# A compiler that may fuse a product and a sum, as it does outside of -std=c99 for a processor that can.
FUSING = ("-O2", "-march=native", "-Wall", "-Wextra", "-Werror")


@pytest.mark.parametrize("flags", [FLAGS, FUSING], ids=["c99", "fusing"])
@pytest.mark.parametrize("name", ["digits", "braille"])
def test_the_bundles_that_ship_have_the_references_bits(name: str, flags: tuple[str, ...]) -> None:
    bundle = Bundle.read(PRETRAINED / name / "1")
    *differing, steps = against_reference(
        bundle.network, CompiledC(bundle.network, flags=flags).run, bundle.golden.inputs
    )
    assert differing == [0, 0]
    assert steps > 10_000


@pytest.mark.parametrize("target", TARGETS)
def test_other_processors_and_compilers_give_the_same_bits(target: str) -> None:
    made = TARGETS[target]
    if not made.is_here:
        pytest.skip(f"{made.compiler} or its emulator is not installed: ./scripts/install-tools")
    for name in ("digits", "braille"):
        bundle = Bundle.read(PRETRAINED / name / "1")
        compiled = CompiledC(bundle.network, [made.compiler], made.flags, made.emulator)
        assert against_reference(bundle.network, compiled.run, bundle.golden.inputs[:1])[:2] == (0, 0)


def test_a_processor_with_half_precision_gives_the_same_bits() -> None:
    """Outside of -std=c99 gcc says 16 for it, not 0: only half precision is computed as such, floats stay floats."""
    made = TARGETS["arm64, gcc"]
    if not made.is_here:
        pytest.skip("aarch64-linux-gnu-gcc or qemu-aarch64 is not installed: ./scripts/install-tools")
    bundle = Bundle.read(PRETRAINED / "braille" / "1")
    flags = (*made.flags, "-std=gnu11", "-march=armv8.2-a+fp16")
    compiled = CompiledC(bundle.network, [made.compiler], flags, made.emulator)
    assert against_reference(bundle.network, compiled.run, bundle.golden.inputs[:1])[:2] == (0, 0)


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
    np.testing.assert_array_equal(runs[0].readout, runs[1].readout)
    for name, spikes in runs[0].rasters.items():
        np.testing.assert_array_equal(spikes, runs[1].rasters[name])


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
    source = write(network, "n")
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


def test_the_class_of_a_tie_is_the_first_and_a_unit_beyond_the_inputs_is_no_event(tmp_path: Path) -> None:
    # Units 1 and 2 fire once each, and unit 0 never. A write at unit 2**32 - 1 would end the program by a signal.
    source = write(network_of([{"type": "IF", "name": "out"}], {}, **task(3, 1, "abc", "spikes")), "n")
    (tmp_path / "n.c").write_text(source.code)
    (tmp_path / "n.h").write_text(source.header)
    (tmp_path / "main.c").write_text(
        '#include "n.h"\nstatic n_net net;\nstatic const uint32_t units[] = {1, 2, 3, 0xffffffff};\n'
        "int main(void) { n_init(&net); n_step_events(&net, units, 4); return n_class(&net); }\n"
    )
    subprocess.run(["cc", *QUICK, "-o", "n", "main.c", "n.c"], check=True, cwd=tmp_path)  # noqa: S607
    assert subprocess.run([tmp_path / "n"], check=False).returncode == 1


def test_a_bundle_that_reads_a_sample_whole_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="expected another: C reads step by step"):
        write(apart(), "n")


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
    assert "neuron-steps and 0 values of the answers differ" in verified.stdout


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    done = training_here("verify", PRETRAINED / "digits/1", "--against", "c")
    assert (done.returncode, done.stderr) == (
        1,
        "error: the C compiler is 'no-such-compiler', which is not installed; set CC to one that is\n",
    )


@pytest.mark.parametrize(
    ("network", "table"),
    [
        (layer("4 bits", 100, 8, bias=False), "uint8_t n0_weight[400]"),
        # Of synapses with delays only those are written that are not 0.
        (layer("floats", 20, 64, taps=25, share=0.04), "n1_output[{}]"),
    ],
)
def test_weights_of_few_bits_or_mostly_0_take_as_few_bytes(network: Network, table: str) -> None:
    assert table.format(np.count_nonzero(network.tensors["fc.weight"])) in write(network, "n").code
    inputs = raster(0.2, 3, network)
    assert against_reference(network, CompiledC(network).run, inputs)[:2] == (0, 0)


@pytest.mark.parametrize("name", ["SIZE", "NET", "int", "3d", "header"])
def test_no_name_of_a_model_or_a_state_is_taken_for_a_part_of_the_file(name: str, tmp_path: Path) -> None:
    states = dict.fromkeys(("NET", "SIZE", "STEPS", "CONTENT", "int"), 0.0)
    step = [*(f"{each} = {each} + current" for each in states), "s = fire(NET, 1)"]
    nodes = [
        {"type": "Neuron", "name": "SUM", "program": {"states": states, "step": step, "spikes": "s"}, "parameters": {}}
    ]
    source = write(network_of(nodes, {}, **task(2, 3, "ab", "spikes")), name)
    (tmp_path / f"{source.prefix}.h").write_text(source.header)
    (tmp_path / "n.c").write_text(source.code)
    subprocess.run(["cc", *QUICK, "-c", "n.c"], check=True, cwd=tmp_path)  # noqa: S607


SIZES = {"float": 4, "double": 8, "int64_t": 8, "int32_t": 4, "uint8_t": 1}


@pytest.mark.parametrize(("name", "most"), [("digits", 30_000), ("braille", 2_000)])
def test_arrays_that_are_never_needed_together_share_their_memory(name: str, most: int) -> None:
    header = write(Bundle.read(PRETRAINED / name / "1").network, name).header
    struct = re.findall(r"^  (\w+) \w+\[(\d+)\];", header, re.MULTILINE)
    assert sum(SIZES[kind] * int(count) for kind, count in struct) < most
