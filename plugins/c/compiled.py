"""A bundle's C file, compiled and run as an engine runs: in a process of its own, here or under an emulator.

A small program around the file reads samples from its standard input and writes what each gave, as plain binary:

    in    int64 samples, steps, and what a step is (1: events)
          for each sample: each step's values, or the number of its events and these
    out   for each sample: the output of each firing layer at each step, in float32; counts and readout
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from weakref import finalize

import numpy as np

from spikeserve.models.coding import EventInputs, Inputs
from spikeserve.models.engines.base import RunResult
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.plugins.c.source import event_currents, write
from spikeserve.training.errors import InvalidConfig

FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
MOST_SHOWN = 2000  # characters of what a compiler says

MAIN = """#include <stdio.h>
#include <stdlib.h>
#include "served.h"

static void give(const void *from, size_t size) { if (size && fwrite(from, size, 1, stdout) != 1) exit(4); }
#define SERVED_LAYER(name, spikes, count) { \\
  int32_t at; \\
  for (at = 0; at < count; at++) { float fired = (float)(spikes)[at]; give(&fired, sizeof fired); } }
#include "served.c"

static served_net net;
static float values[SERVED_INPUTS];
static uint32_t units[SERVED_INPUTS];

static void read_all(void *to, size_t size) { if (size && fread(to, size, 1, stdin) != 1) exit(3); }

int main(void) {
  int64_t head[3], sample, step, count, counts[SERVED_CLASSES];
  float readout[SERVED_CLASSES];
  (void)count, (void)values, (void)units;
  read_all(head, sizeof head);
  for (sample = 0; sample < head[0]; sample++) {
    served_init(&net);
BEGIN
    for (step = 0; step < head[1]; step++) {
STEP
    }
    served_counts(&net, counts);
    served_readout(&net, readout);
    give(counts, sizeof counts);
    give(readout, sizeof readout);
  }
  return 0;
}
"""
PRESENT = "    read_all(values, sizeof values);\n    served_present(&net, values);"
STEP = """      if (head[2]) {
        read_all(&count, sizeof count);
        read_all(units, (size_t)count * sizeof *units);
        served_step_events(&net, units, (size_t)count);
      } else {
        read_all(values, sizeof values);
        served_step(&net, values);
      }"""


class CompiledC:
    """Runs the C file of a network.

    `compiler` is a command, by default that in the environment's CC, or `cc`; `emulator` one that runs what it makes.
    Raises InvalidConfig where the compiler is not installed or refuses the file.
    """

    def __init__(
        self, network: Network, compiler: Sequence[str] = (), flags: Sequence[str] = FLAGS, emulator: Sequence[str] = ()
    ) -> None:
        self.network = network
        self.layers = list(network.spec.layers)
        folder = Path(tempfile.mkdtemp())
        finalize(self, shutil.rmtree, folder, ignore_errors=True)
        source = write(network, "served")
        (folder / "served.c").write_text(source.code)
        (folder / "served.h").write_text(source.header)
        (folder / "main.c").write_text(self._main())
        command = [*(compiler or os.environ.get("CC", "cc").split())]
        if shutil.which(command[0]) is None:
            raise InvalidConfig(f"the C compiler is '{command[0]}', which is not installed; set CC to one that is")
        self.program = [*emulator, str(folder / "served")]
        # Flags behind the files, as a compiler wants libraries there.
        built = [*command, "-o", str(folder / "served"), str(folder / "main.c"), *flags]
        done = subprocess.run(built, capture_output=True, text=True, check=False)  # noqa: S603  (the user's own)
        if done.returncode:
            raise InvalidConfig(f"{command[0]} refuses the file: {done.stderr[:MOST_SHOWN]}")

    def _main(self) -> str:
        direct = self.network.spec.coding is Coding.DIRECT
        main = MAIN.replace("BEGIN", PRESENT if direct else "")
        return main.replace("STEP\n", "      served_step(&net);\n" if direct else f"{STEP}\n", 1)

    def run(self, inputs: Inputs) -> RunResult:
        """Run every sample from rest, and record its spikes; no membranes are recorded and no operations counted."""
        direct = self.network.spec.coding is Coding.DIRECT
        events = isinstance(inputs, EventInputs) and not inputs.value.size and not direct
        events = events and bool((event_currents(self.network) == 1).all())
        head = [inputs.batch, inputs.time_steps, events]
        message = [np.array(head, np.int64).tobytes()]
        for sample in range(inputs.batch):
            one = slice(sample, sample + 1)
            message += _events(inputs[one]) if events else [_values(inputs[one], direct=direct)]
        done = subprocess.run(self.program, input=b"".join(message), capture_output=True, check=False)  # noqa: S603
        if done.returncode:
            raise InvalidConfig(f"the C program ends with {done.returncode}: {done.stderr[:MOST_SHOWN]!r}")
        return self._read(done.stdout, inputs.batch, inputs.time_steps)

    def _read(self, output: bytes, batch: int, steps: int) -> RunResult:
        spec, classes = self.network.spec, self.network.spec.classes
        sizes = [math.prod(spec.output_shapes[name]) for name in self.layers]
        each = np.dtype(
            [
                ("spikes", np.float32, (steps, sum(sizes))),
                ("counts", np.int64, (classes,)),
                ("readout", np.float32, (classes,)),
            ]
        )
        answers = np.frombuffer(output, each)
        parts = np.split(answers["spikes"].swapaxes(0, 1).astype(np.int32), np.cumsum(sizes)[:-1], axis=2)
        rasters = {
            name: part.reshape(steps, batch, *spec.output_shapes[name])
            for name, part in zip(self.layers, parts, strict=False)
        }
        return RunResult(
            answers["counts"].copy(),
            answers["readout"].copy(),
            np.zeros(batch, np.int64),  # the C code counts none
            {name: part.sum(axis=(0, 2), dtype=np.int64) for name, part in zip(self.layers, parts, strict=False)},
            rasters=rasters,
        )


def _values(inputs: Inputs, *, direct: bool) -> bytes:
    dense = inputs.dense()
    steps = dense.steps[:1] if direct else np.broadcast_to(dense.steps, (dense.time_steps, *dense.steps.shape[1:]))
    return np.ascontiguousarray(steps, np.float32).tobytes()


def _events(inputs: Inputs) -> list[bytes]:
    sent = list[bytes]()
    assert isinstance(inputs, EventInputs)  # noqa: S101  (the caller has looked)
    for first, end in zip(inputs.offset[:-1], inputs.offset[1:], strict=True):
        sent += [np.int64(end - first).tobytes(), inputs.unit[first:end].astype(np.uint32).tobytes()]
    return sent
