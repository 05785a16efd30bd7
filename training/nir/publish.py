"""A NIR file's network as a bundle in a repository, with golden samples drawn at random and a card that says all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models import onnx_graph
from models.bundle import Contents
from models.network import FloatArray, Network
from models.repository import ModelRepository, require_name
from models.spec import Coding, Spec
from models.version import VERSION
from training.datasets import Split
from training.golden import choose_golden
from training.nir import stored
from training.nir.card import write_card
from training.nir.convert import Conversion, Options, convert
from training.nir.file import NirFile, read
from training.nir.rules import GivenRules, Rules
from training.parity import Parity, compare_engines

GOLDEN_CANDIDATES = 12
GOLDEN_SEED = 0


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
    split = random_samples(network.spec)
    parity = compare_engines(network, split)
    contents = Contents(
        name=name,
        network=network,
        golden=choose_golden(network, split),
        metrics={},
        card=write_card(name, path.name, file, rules, conversion, parity),
    )
    version = repository.publish(
        contents, lambda number: onnx_graph.build(network, name, number, VERSION).SerializeToString()
    )
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


def random_samples(spec: Spec) -> Split:
    """Return samples as a client would send them: spikes, few in the first and half of all in the last, or values."""
    rng = np.random.default_rng(GOLDEN_SEED)
    steps = (spec.time_steps,) if spec.coding is Coding.SPIKES else ()
    drawn: FloatArray = rng.random((GOLDEN_CANDIDATES, *steps, *spec.input.shape), np.float32)
    if spec.coding is Coding.SPIKES:
        density = np.linspace(0.02, 0.5, GOLDEN_CANDIDATES, dtype=np.float32)
        drawn = (drawn < density.reshape(-1, *(1 for _ in drawn.shape[1:]))).astype(np.float32)
    low, high = np.float32(spec.input.low), np.float32(spec.input.high)
    # Spikes are whole: 0 is silence where the range holds it.
    quiet = np.float32(0.0) if low <= 0 <= high else low
    base = quiet if spec.coding is Coding.SPIKES else low
    samples = np.clip(base + drawn * (high - base), low, high).astype(np.float32)
    return Split(samples, np.zeros(len(samples), np.int64))
