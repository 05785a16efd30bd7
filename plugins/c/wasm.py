"""A bundle's C file as WebAssembly, which a page runs without a server: made by clang and its linker, for wasm32."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.plugins.c.source import write as source_of
from spikeserve.plugins.c.tables import filled
from spikeserve.training.errors import InvalidConfig

CLANG = "clang"
EXPORTED = ("values", "begin", "step", "answer", "counts", "readout", "time_steps")
FLAGS = ("--target=wasm32", "-std=c99", "-O2", "-mbulk-memory", "-nostdlib", "-Wall", "-Wextra", "-Werror")
MOST_SHOWN = 2000  # characters of what a compiler says

# What a page calls: it writes raw values where `values` points, begins, and takes steps; an answer may be asked at any
# time. With direct coding the values count when it begins, otherwise at each step.
WRAPPER = """
static PREFIX_net net;
static float raw[PREFIX_SIZE], currents[PREFIX_SIZE], read[PREFIX_OUTPUTS];
static int64_t counted[PREFIX_OUTPUTS];

float *values(void) { return raw; }

int begin(void) {
  PREFIX_init(&net);
  BEGIN
}

int step(void) {
  STEP
}

int64_t *counts(void) {
  PREFIX_counts(&net, counted);
  return counted;
}

float *readout(void) {
  PREFIX_readout(&net, read);
  return read;
}

int32_t time_steps(void) { return PREFIX_STEPS; }

int32_t answer(void) { return PREFIX_class(&net); }
"""
DIRECT = {
    "BEGIN": "if (PREFIX_normalise(raw, currents)) return -1;\n  PREFIX_present(&net, currents);\n  return 0;",
    "STEP": "PREFIX_step(&net);\n  return 0;",
}
EACH_STEP = {
    "BEGIN": "return 0;",
    "STEP": "if (PREFIX_normalise(raw, currents)) return -1;\n  PREFIX_step(&net, currents);\n  return 0;",
}


def write(
    network: Network,
    name: str,
    version: int,  # noqa: ARG001  (the module says none)
    path: Annotated[Path, typer.Argument(help="The file to write, such as digits.wasm.", metavar="FILE")],
) -> list[str]:
    """Write a bundle as WebAssembly, which a static page runs without a server; clang makes it."""
    content = compiled(network, name)
    path.write_bytes(content)
    return [f"Wrote {path}, {len(content) / 1000:.0f} kB"]


def compiled(network: Network, name: str) -> bytes:
    """Make a WebAssembly module; raises InvalidConfig where there is no clang, or no linker for wasm."""
    for program, package in ((CLANG, "clang"), ("wasm-ld", "lld")):
        if shutil.which(program) is None:
            raise InvalidConfig(
                f"{program} is not installed, which makes WebAssembly; on Debian: apt-get install {package}"
            )
    source = source_of(network, name)
    spec, prefix = network.spec, source.prefix
    text = WRAPPER
    for name, lines in (DIRECT if spec.coding is Coding.DIRECT else EACH_STEP).items():
        text = text.replace(f"  {name}\n", f"  {lines}\n")
    sizes = {"PREFIX_SIZE": f"{prefix.upper()}_INPUTS", "PREFIX_OUTPUTS": f"{prefix.upper()}_CLASSES"}
    sizes |= {"PREFIX_STEPS": f"{prefix.upper()}_TIME_STEPS", "PREFIX": prefix}
    text = filled(text, sizes)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{prefix}.h").write_text(source.header)
        (Path(folder) / "module.c").write_text(source.code + text)
        exports = [f"-Wl,--export={name}" for name in EXPORTED]
        command = [CLANG, *FLAGS, "-Wl,--no-entry", *exports, "-Wl,--strip-all", "-o", "module.wasm", "module.c"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise InvalidConfig(f"{CLANG} refuses the file: {done.stderr[:MOST_SHOWN]}")
        return (Path(folder) / "module.wasm").read_bytes()
