"""One corpus of bundles that mean harm or are damaged: each with the sentence that loading it must give."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.bundles import publish, rewrite
from tests.hostile_bundles.files import CORRUPT
from tests.hostile_bundles.specs import huge_specs
from tests.networks import toy


class HostileBundle(NamedTuple):
    """A bundle: its kind, what makes it as version 1 of a model of a repository, and a part of its sentence."""

    kind: str
    make: Callable[[Path, str], None]
    sentence: str


def hostile_bundles() -> Iterator[HostileBundle]:
    """Yield the whole corpus; each kind occurs once."""
    for corrupt, sentence in CORRUPT.items():
        yield HostileBundle(f"file: {corrupt.__name__}", partial(_of_files, corrupt), sentence)
    for name, spec, sentence in huge_specs():
        yield HostileBundle(f"spec: {name}", partial(_of_spec, spec), sentence)


def _of_files(corrupt: Callable[[Path], None], root: Path, name: str) -> None:
    publish(root, toy(), name)
    corrupt(root / name / "1")


def _of_spec(spec: dict[str, Any], root: Path, name: str) -> None:
    publish(root, toy(), name)
    rewrite(root / name / "1", lambda manifest: manifest.update(spec=spec))
