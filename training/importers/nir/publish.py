"""A NIR file's network as a bundle in a repository, with golden samples drawn at random and a card that says all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from models.bundle.repository import ModelRepository, require_name
from models.spec import Spec
from models.spec.network import Network
from training.data.drawn import drawn_split
from training.importers.nir import stored
from training.importers.nir.card import write_card
from training.importers.nir.convert import Conversion, Options, convert
from training.importers.nir.file import NirFile, read
from training.importers.nir.rules import GivenRules, Rules
from training.publish.publish import publish
from training.report.parity import Parity, compare_engines

SAMPLES = 12


@dataclass(frozen=True)
class Imported:
    """What was published, under which rules, what was mended, and how the engines compared on random samples."""

    folder: Path
    version: int
    rules: Rules
    warnings: tuple[str, ...]
    parity: list[Parity]


def import_nir(path: Path, given: GivenRules, options: Options, repository: ModelRepository, name: str) -> Imported:
    """Publish a NIR file as the next version of `name`.

    Raises InvalidGraph, InvalidRules, InvalidSpec or InvalidInput with one sentence, before anything is written.
    """
    require_name(name)
    file = read(path)
    rules = given.over(GivenRules.of(file.graph.metadata)).complete()
    conversion = network_of(file, rules, options)
    network = conversion.network
    samples = drawn_split(network.spec, SAMPLES)
    parity = compare_engines(network, samples)
    card = write_card(name, path.name, file, rules, conversion, parity)
    version = publish(network, repository, name, samples, card, metrics={})
    return Imported(repository.root / name / str(version), version, rules, conversion.warnings, parity)


def network_of(file: NirFile, rules: Rules, options: Options) -> Conversion:
    """Return the network of a file: the very one that we exported where it is that still, else under the rules."""
    graph = file.graph
    if not stored.is_ours(graph):
        return convert(graph, rules, options)
    named = GivenRules.of(graph.metadata).complete()
    if replace(rules, reset_timing=rules.reset_timing or named.reset_timing) != named:
        note = "the file holds a spec of its own, but other rules than its own were named; its nodes were read instead"
    elif not stored.is_unchanged(graph):
        note = "the file was changed since it was exported; its nodes were read instead of the spec that it holds"
    else:
        return Conversion(_with_options(stored.restore(graph), options), ())
    conversion = convert(graph, rules, options)
    return Conversion(conversion.network, (note, *conversion.warnings))


def _with_options(network: Network, options: Options) -> Network:
    spec = network.spec.model_dump(mode="json", exclude_none=True)
    given = {"time_steps": options.time_steps, "coding": options.coding, "readout": options.readout}
    spec |= {key: value for key, value in given.items() if value is not None}
    spec |= {"labels": options.labels} if options.labels else {}
    spec["input"] |= {
        key: value for key, value in {"low": options.low, "high": options.high}.items() if value is not None
    }
    return Network(Spec.read(spec), network.tensors)
