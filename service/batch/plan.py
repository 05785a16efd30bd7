"""What a batch job has to do: which files it reads, in which parts, and which of those are done.

A part is some samples of one file, or several files of one recording each. Its predictions are one Parquet file, whose
name holds a hash of all that they depend on: the input's name, size and time of change, the bundle, and the settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikeserve.service.batch.sources import SUFFIXES, Source, source_of
from spikeserve.service.errors import Misconfigured

PART_BYTES = 2**24  # of the input that a part holds, unless one sample has more: what a process reads at once
PART_FILES = 1024  # recordings in one part
SUFFIX = ".parquet"
UNFINISHED = ".unfinished-"  # begins the name of a file that is being written, which does not end in SUFFIX
MAX_LISTED = 3


@dataclass(frozen=True)
class Part:
    """The samples from `start` up to `stop` of each source; `output` is the name of the file of their predictions."""

    sources: tuple[Source, ...]
    start: int
    stop: int
    output: str

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return len(self.sources) * (self.stop - self.start)


def inputs(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Return the files at the paths, each with its name below the path that was given; a folder gives all in it.

    Raises Misconfigured for a path that is not there, a folder without a file that can be read, and a name given twice.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            below = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
            named = [(str(each.relative_to(path)), each) for each in below]
        elif path.is_file() and path.suffix.lower() in SUFFIXES:
            named = [(path.name, path)]
        else:
            named = []
        if not named:
            raise Misconfigured(f"input: '{path}' is no file or folder of files that end in {', '.join(SUFFIXES)}")
        for name, each in named:
            if name in found:
                raise Misconfigured(
                    f"input: '{found[name]}' and '{each}' are both named '{name}', expected other names"
                )
            found[name] = each
    return [(path, name) for name, path in found.items()]


def parts(files: Sequence[tuple[Path, str]], part_samples: int, job: str) -> Iterator[Part]:
    """Yield the parts of the files in order; `job` names the bundle and the settings.

    Raises Misconfigured for a file that cannot be read.
    """
    group: list[Source] = []
    for path, name in files:
        source = source_of(path, name)
        if source.samples is None:  # one recording
            if group and (len(group) >= min(PART_FILES, part_samples) or _size([*group, source]) > PART_BYTES):
                yield _part(group, 0, 1, job)
                group = []
            group.append(source)
            continue
        step = max(1, min(part_samples, PART_BYTES // max(1, source.sample_bytes)))
        for start in range(0, source.samples, step):
            yield _part([source], start, min(source.samples, start + step), job)
    if group:
        yield _part(group, 0, 1, job)


def _size(sources: Sequence[Source]) -> int:
    return sum(each.size for each in sources)


def _part(sources: Sequence[Source], start: int, stop: int, job: str) -> Part:
    identity = [[[each.name, each.size, each.changed] for each in sources], start, stop, job]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    stem = "".join(each if each.isalnum() or each in "._-" else "_" for each in sources[0].name)[:100]
    return Part(tuple(sources), start, stop, f"{stem}-{start:09d}-{digest}{SUFFIX}")


def unfinished(planned: Sequence[Part], output: Path) -> list[Part]:
    """Return the parts whose predictions are not in the folder yet; raises Misconfigured for those of another job."""
    there = {each.name for each in output.glob(f"*{SUFFIX}")} if output.is_dir() else set()
    if others := sorted(there - {each.output for each in planned}):
        listed = ", ".join(f"'{each}'" for each in others[:MAX_LISTED]) + (" …" if len(others) > MAX_LISTED else "")
        raise Misconfigured(
            f"output: '{output}' holds {listed}, of other inputs, another bundle or other settings, expected an empty "
            "folder, or one in which the same command was run before"
        )
    return [each for each in planned if each.output not in there]
