"""A bundle's C file on other processors: bits that differ, bytes, and the instructions of a step.

Each network runs its golden samples as C on each target whose compiler and emulator are here, beside the reference
engine. Bytes are those of the object file's code and constants, for the Cortex-M7, and of the struct in memory.
Instructions are counted by QEMU, which plays the board mps2-an500: a mean over the steps of the golden samples.

    python -m benchmarks.targets
    python -m benchmarks.targets --repository repository

With --repository, every model of it runs random samples, and only what differs is counted.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.tables import markdown
from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository
from spikeserve.models.coding import DenseInputs, encode
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.models.spec.parameters import WeightBits
from spikeserve.plugins.c.compiled import CompiledC
from spikeserve.plugins.c.source import write
from spikeserve.training.data.datasets import random_samples
from spikeserve.training.fit.gptq import quantised
from spikeserve.training.report.parity import against_reference

EXAMPLE = Path(__file__).parents[1] / "examples/cortex-m"
PROCESSOR = ("-std=c99", "-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16")
CORTEX = (*PROCESSOR, "-O2", "--specs=rdimon.specs", "-T", str(EXAMPLE / "board.ld"), str(EXAMPLE / "vectors.c"))
BOARD = (
    *("qemu-system-arm", "-M", "mps2-an500", "-display", "none", "-monitor", "none", "-serial", "none"),
    *("-semihosting-config", "enable=on,target=native"),
)
TICK = 40  # instructions of 1 ns in a tick of the board's clock of 25 MHz
SAMPLES = 2  # that are counted

# Counts by the SysTick timer, which runs down from 2**24 - 1; a step takes far less than a turn of it.
COUNTED = """#include <stdio.h>
#include "counted.h"
static const float currents[STEPS][COUNTED_INPUTS] = {VALUES};
static counted_net net;
int main(void) {
  volatile uint32_t *timer = (volatile uint32_t *)0xE000E010;
  unsigned long ticks = 0;
  int step;
  timer[1] = 0xFFFFFF, timer[2] = 0, timer[0] = 5;
  counted_init(&net);
  for (step = 0; step < RUNS; step++) {
    uint32_t before;
    if (step % PERIOD == 0) { counted_init(&net); PRESENT }
    before = timer[2];
    STEP
    ticks += (before - timer[2]) & 0xFFFFFF;
  }
  printf("%lu\\n", ticks);
  return 0;
}
"""


@dataclass(frozen=True)
class Target:
    """A compiler with its flags, and what runs its programs."""

    compiler: str
    flags: tuple[str, ...] = ("-std=c99", "-O2")
    emulator: tuple[str, ...] = ()

    @property
    def is_here(self) -> bool:
        """Whether its programs are installed."""
        return all(shutil.which(program) for program in (self.compiler, *self.emulator[:1]))


TARGETS: Mapping[str, Target] = {
    "x86-64, gcc": Target("gcc"),
    "x86-64, clang": Target("clang"),
    "arm64, gcc": Target("aarch64-linux-gnu-gcc", ("-std=c99", "-O2", "-static"), ("qemu-aarch64",)),
    "Cortex-M7, gcc": Target("arm-none-eabi-gcc", CORTEX, (*BOARD, "-kernel")),
}


def differing(network: Network, inputs: DenseInputs, target: Target) -> str:
    """Count what differs from the reference engine: spikes and answers."""
    if not target.is_here:
        return "not here"
    there = CompiledC(network, [target.compiler], target.flags, target.emulator)
    spikes, values, steps = against_reference(network, there.run, inputs)
    return f"{spikes + values} of {steps}"


def run(*command: str, folder: Path) -> str:
    """Run a program and give what it prints."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def sizes(network: Network, folder: Path) -> tuple[int, int]:
    """Give the bytes of code and constants, and those of the network's struct, on a Cortex-M7."""
    source = write(network, "counted")
    (folder / "counted.h").write_text(source.header)
    (folder / "counted.c").write_text(f"{source.code}\ncounted_net held;\n")
    run("arm-none-eabi-gcc", "-Os", *PROCESSOR, "-c", "counted.c", folder=folder)
    listed = run("arm-none-eabi-size", "counted.o", folder=folder)
    text, data, held = map(int, re.findall(r"\d+", listed.splitlines()[1])[:3])
    return text + data, held


def instructions(network: Network, inputs: DenseInputs, folder: Path) -> float:
    """Give the instructions of a step, counted where `sizes` has left the files."""
    direct, period = network.spec.coding is Coding.DIRECT, inputs.time_steps
    values = inputs.steps[:, :SAMPLES].swapaxes(0, 1).reshape(-1, int(np.prod(inputs.steps.shape[2:])))
    rows = ",".join("{" + ",".join(f"{float(value).hex()}f" for value in row) + "}" for row in values)
    place = "currents[step / PERIOD]" if direct else "currents[step]"
    lines = {
        "PRESENT": f"counted_present(&net, {place});" if direct else "",
        "    STEP\n": f"    counted_step(&net{'' if direct else f', {place}'});\n",
        "STEPS": str(len(values)),
        "RUNS": str(SAMPLES * period),
        "PERIOD": str(period),
        "VALUES": rows,
    }
    text = COUNTED
    for name, value in lines.items():
        text = text.replace(name, value)
    (folder / "main.c").write_text(text)
    run("arm-none-eabi-gcc", *CORTEX, "-o", "counted.elf", "main.c", "counted.c", folder=folder)
    ticks = run(*BOARD, "-icount", "shift=0", "-kernel", "counted.elf", folder=folder)
    return int(ticks) * TICK / (SAMPLES * period)


def networks() -> dict[str, tuple[Network, DenseInputs]]:
    """Give the bundles that ship, digits also with weights of 8 and 4 bits, each with its golden inputs."""
    found = dict[str, tuple[Network, DenseInputs]]()
    for name in ("digits", "braille"):
        bundle = Bundle.read(PRETRAINED / name / "1")
        found[name] = (bundle.network, bundle.golden.inputs)
    network, inputs = found["digits"]
    every: Sequence[WeightBits] = (8, 4)
    for bits in every:
        found[f"digits, {bits} bits"] = (quantised(network, dict.fromkeys(network.spec.weight_bits, bits), {}), inputs)
    return found


def compare_all(repository: ModelRepository) -> None:
    """Print what differs of each model in a repository, on every target."""
    rows = []
    for name in repository.names():
        network = repository.read(name).network
        inputs = encode(random_samples(network.spec, SAMPLES, seed=9), network.spec)
        rows.append([name, *(differing(network, inputs, target) for target in TARGETS.values())])
    print(markdown(["network", *TARGETS], rows))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    parser.add_argument("--repository", type=Path, help="a folder of models to compare in place of those that ship")
    if (folder := parser.parse_args().repository) is not None:
        compare_all(ModelRepository(folder))
        return
    rows = []
    for name, (network, inputs) in networks().items():
        cells = [differing(network, inputs, target) for target in TARGETS.values()]
        code = memory = step = "not here"
        if TARGETS["Cortex-M7, gcc"].is_here:
            with tempfile.TemporaryDirectory() as folder:
                text, held = sizes(network, Path(folder))
                code, memory = f"{text / 1000:.1f} kB", f"{held / 1000:.1f} kB"
                step = f"{instructions(network, inputs, Path(folder)):,.0f}"
        rows.append([name, *cells, code, memory, step])
    print(markdown(["network", *TARGETS, "code and weights", "memory", "instructions a step"], rows))


if __name__ == "__main__":
    main()
