"""Take a network of the zoo in by `import`, in this process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nir

from tests.training.command_line import training_here
from tests.zoo.registry import FRAMEWORKS, Entry


@dataclass(frozen=True)
class Imported:
    """What came of a network: an import's sentence where it is refused; else what its card counts of its framework."""

    refusal: str = ""
    differing: int = 0
    neuron_steps: int = 0


def take_in(entry: Entry, repository: Path, files: Path) -> Imported:
    """Import a network into a repository; its card says how it compares with the framework's modules."""
    words = [word for name, value in entry.options.items() for word in (f"--{name}", value)]
    given = {"--batch": entry.batch, "--answer": entry.answer, "--start": entry.start}
    traced = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    words += ["--repository", str(repository), "--name", entry.name, "--input-shape", ",".join(map(str, entry.shape))]
    words += ["--time-steps", str(entry.time_steps), "--coding", str(entry.coding)]
    source = entry.place if entry.framework in FRAMEWORKS else str(_file(entry, files))
    done = training_here("import", entry.framework, source, *words, *traced)
    if done.returncode or entry.framework not in FRAMEWORKS:
        return Imported(refusal=done.stderr if done.returncode else "")
    card = (repository / entry.name / "1" / "card.md").read_text()
    agreement = card.partition(f"## Agreement with {entry.framework}")[2].partition("\n## ")[0]
    counted = re.findall(r"\| (\d+) of (\d+) \|$", agreement, re.MULTILINE)
    return Imported("", *(sum(map(int, counts)) for counts in zip(*counted, strict=True)))


def _file(entry: Entry, folder: Path) -> Path:
    nir.write(path := folder / f"{entry.name}.nir", entry.source())
    return path
