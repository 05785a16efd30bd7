"""Take a network of the zoo in by the project's own commands, in this process, and prove it against its framework."""

from __future__ import annotations

import io
import re
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import nir
import pytest

from spikeserve.training.__main__ import main
from tests.zoo.registry import FRAMEWORKS, Entry

SAMPLES = "8"


@dataclass(frozen=True)
class Imported:
    """What came of a network: an import's sentence where it is refused; else what `verify` counts against it."""

    refusal: str = ""
    differing: int = 0
    neuron_steps: int = 0
    seconds: float = 0.0


def command(*words: str) -> tuple[int, str, str]:
    """Run `python -m spikeserve.training …` in this process; return its status, its output and its errors."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["training", *words])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of frameworks, about themselves
            with pytest.raises(SystemExit) as ended:
                main()
    return int(ended.value.code or 0), output.getvalue(), errors.getvalue()


def take_in(entry: Entry, repository: Path, files: Path) -> Imported:
    """Import a network into a repository, and verify it with the framework's modules where it is one of modules."""
    weights = [] if entry.weights is None else ["--state-dict", str(_weights(entry, files))]
    words = [word for name, value in entry.options.items() for word in (f"--{name}", value)]
    given = {"--batch": entry.batch, "--answer": entry.answer, "--start": entry.start}
    traced = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    words += ["--repository", str(repository), "--name", entry.name, "--input-shape", ",".join(map(str, entry.shape))]
    words += ["--time-steps", str(entry.time_steps), "--coding", str(entry.coding)]
    source = entry.place if entry.framework in FRAMEWORKS else str(_file(entry, files))
    begun = time.perf_counter()
    status, _, errors = command("import", entry.framework, source, *words, *weights, *traced)
    seconds = time.perf_counter() - begun
    if status:
        return Imported(refusal=errors, seconds=seconds)
    if entry.framework not in FRAMEWORKS:
        return Imported(seconds=seconds)
    bundle = str(repository / entry.name / "1")
    against = f"{entry.framework}:{entry.place}"
    _, found, errors = command("verify", bundle, "--against", against, "--samples", SAMPLES, *weights, *traced)
    counted = re.search(r"^(\d+) of (\d+) neuron-steps differ", found, re.MULTILINE)
    assert counted, f"{entry.name}: verify counts nothing: {found}{errors}"
    return Imported("", int(counted[1]), int(counted[2]), seconds)


def _weights(entry: Entry, folder: Path) -> Path:
    assert entry.weights is not None
    network, write = entry.weights
    (own := folder / entry.name).mkdir()
    return write(network(), own)


def _file(entry: Entry, folder: Path) -> Path:
    path = folder / f"{entry.name}.{entry.framework}"
    if entry.framework == "onnx":
        path.write_bytes(entry.source())
    else:
        nir.write(path, entry.source())
    return path
