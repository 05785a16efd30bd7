"""One corpus of bundles that mean harm or are damaged: each with the sentence that loading it must give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.bundles import publish, rewrite
from tests.hostile_bundles.files import CORRUPT, CORRUPT_ON_ONNX
from tests.hostile_bundles.graphs import HostileGraph, hostile_graphs
from tests.hostile_bundles.specs import huge_specs
from tests.networks import toy
from tests.onnx_graphs import publish_with


class HostileBundle(NamedTuple):
    """A bundle: its kind, what makes it as version 1 of a model of a repository, and a part of its sentence.

    `sentence` is None where it is fine. `engine` is the one that finds the fault. `is_endless` says that its load
    goes on for minutes at the least, unless it is stopped.
    """

    kind: str
    make: Callable[[Path, str], None]
    sentence: str | None
    engine: str = "auto"
    is_endless: bool = False


def hostile_bundles() -> Iterator[HostileBundle]:
    """Yield the whole corpus; each kind occurs once."""
    for engine, corrupt_files in (("auto", CORRUPT), ("onnx", CORRUPT_ON_ONNX)):
        for corrupt, sentence in corrupt_files.items():
            yield HostileBundle(f"file: {corrupt.__name__}", partial(_of_files, corrupt), sentence, engine)
    for name, spec, sentence in huge_specs():
        yield HostileBundle(f"spec: {name}", partial(_of_spec, spec), sentence)
    for graph in hostile_graphs():
        make = partial(_of_graph, graph)
        yield HostileBundle(f"graph: {graph.name}", make, graph.sentence, "onnx", graph.is_endless)


def _of_files(corrupt: Callable[[Path], None], root: Path, name: str) -> None:
    publish(root, toy(), name)
    corrupt(root / name / "1")


def _of_spec(spec: dict[str, Any], root: Path, name: str) -> None:
    publish(root, toy(), name)
    rewrite(root / name / "1", lambda manifest: manifest.update(spec=spec))


def _of_graph(graph: HostileGraph, root: Path, name: str) -> None:
    publish_with(root, graph.make(), name)
