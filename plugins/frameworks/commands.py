"""`spikeserve import snntorch|spikingjelly|norse|sinabs|torch`, and `verify` against the framework's own module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import require_name
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding
from spikeserve.models.spec.network import Network
from spikeserve.plugins.c.compiled import CompiledC
from spikeserve.plugins.c.verify import against_reference
from spikeserve.plugins.frameworks.compare import (
    FirstDifference,
    LayerParity,
    compare,
    judged,
    random_encoded,
    random_run,
    table,
)
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.entry import Weights, load_network
from spikeserve.plugins.frameworks.framework import NAMES, Framework, find
from spikeserve.training.commands.groups import (
    BundleArgument,
    ModelNameOption,
    RepositoryOption,
    console,
    imports,
    shape_of,
)
from spikeserve.training.commands.input_flags import show_input, with_input_flags
from spikeserve.training.errors import ExportRefused, InvalidEntry
from spikeserve.training.importers.builder import Options
from spikeserve.training.publish.publish import COMPARED, publish_imported
from spikeserve.training.report import card as report_card
from spikeserve.training.report.card import imported_card
from spikeserve.training.report.parity import Parity

StateDictOption = Annotated[
    Path | None,
    typer.Option(
        help="Weights: .safetensors, or what torch.save or Lightning wrote.", show_default="the network's own"
    ),
]
RenameOption = Annotated[
    str | None,
    typer.Option(
        help='Old and new keys of these weights, as JSON or the file of it: {"features.*": "conv.*"}.',
        metavar="<json>",
        show_default="what fits all keys",
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(min=2, help="Samples that your forward is tried with, where it needs so many.", show_default="3"),
]
CodingOption = Annotated[
    Coding | None,
    typer.Option(
        help="How a sample becomes steps.",
        show_default="direct where your forward gives one sample to all steps, else spikes",
    ),
]
AnswerOption = Annotated[
    str | None,
    typer.Option(
        help="Which of what your forward returns is read: its place from 1 on, or its key.", show_default="the first"
    ),
]


class Start(StrEnum):
    """Where states begin that a forward draws at random."""

    REST = "rest"


StartOption = Annotated[
    Start | None,
    typer.Option(help="Let states that your forward draws at random begin at 0: rest.", show_default="refuse them"),
]
PublishAnywayOption = Annotated[
    bool,
    typer.Option(
        "--publish-anyway",
        help="Publish what differs from its framework by more than rounding, and say so.",
        show_default="refuse",
    ),
]


def importer(framework_name: str) -> Callable[..., None]:
    """Return the command that imports a framework's networks."""

    def command(
        entry: Annotated[str, typer.Argument(help="Your own code: package.module:factory.", show_default=False)],
        input_shape: Annotated[str, typer.Option(help="One step of one sample, such as 1,28,28.")],
        time_steps: Annotated[int, typer.Option(help="Steps per sample.")],
        repository: RepositoryOption,
        name: ModelNameOption,
        state_dict: StateDictOption = None,
        rename: RenameOption = None,
        coding: CodingOption = None,
        batch: BatchOption = None,
        answer: AnswerOption = None,
        start: StartOption = None,
        publish_anyway: PublishAnywayOption = False,
        *,
        declared: dict[str, Any],
    ) -> None:
        require_name(name)
        tried: dict[str, Any] = {"batch": batch, "answer": answer, "from_rest": start is Start.REST or None}
        options = Options(shape_of(input_shape), time_steps, coding, **tried, **declared)
        framework = find(framework_name)
        converted = convert(load_network(entry, _weights(state_dict, rename)), framework, options)
        console.print(f"Its forward takes {converted.graph.layout}; {time_steps} steps a sample", highlight=False)
        layers, parted = _compared(converted, converted.network, framework)
        other = [origin for origin in parted if not origin.is_rounding]
        if other and not publish_anyway:
            raise ExportRefused(f"'{name}' is not published: {_disagreement(other)}; --publish-anyway publishes it")
        published = publish_imported(
            converted.network,
            repository_at(repository),
            name,
            lambda parity: _card(name, converted, framework, layers, other, parity),
        )
        for note in converted.notes:
            console.print(note, highlight=False, soft_wrap=True)
        show_input(converted.network.spec.input)
        published.show(console)

    command.__doc__ = f"Publish a {framework_name} network as the next version of a model."
    return with_input_flags(command)


for _name in NAMES:
    imports.command(_name)(importer(_name))


def verify(
    bundle: BundleArgument,
    against: Annotated[str, typer.Option(help="The framework and your own code, snntorch:nets:make; or c.")],
    state_dict: StateDictOption = None,
    rename: RenameOption = None,
    batch: BatchOption = None,
    answer: AnswerOption = None,
    start: StartOption = None,
) -> None:
    """Run a bundle and the framework's own module on the same inputs; exit with 1 if a spike differs.

    Against c, it runs what `export c` writes, compiled by cc or what the environment's CC names.
    """
    framework_name, _, entry = against.partition(":")
    if against == "c":
        network = Bundle.read(bundle).network
        difference = against_reference(network, CompiledC(network), random_encoded(network.spec, COMPARED))
        console.print(str(difference), highlight=False)
        raise typer.Exit(int(difference.any))
    framework, network = find(framework_name), Bundle.read(bundle).network
    spec = network.spec
    declared = {name: getattr(spec.input, name) for name in type(spec.input).model_fields if name != "shape"}
    options = Options(
        spec.input.shape,
        spec.time_steps,
        spec.coding,
        spec.readout,
        spec.labels,
        batch=batch,
        answer=answer,
        from_rest=start is Start.REST or None,
        **declared,
    )
    converted = convert(load_network(entry, _weights(state_dict, rename)), framework, options)
    own = [node.name for node in spec.nodes]
    if missing := sorted(converted.places.keys() - set(own)):
        raise InvalidEntry(
            f"against: the network's '{missing[0]}' is no node of the bundle, which has {', '.join(own)}"
        )
    parity, parted = _compared(converted, network, framework)
    differing = sum(row.differing for row in parity)
    console.print(f"{differing} of {sum(row.neuron_steps for row in parity)} neuron-steps differ", highlight=False)
    if differing:
        told = next((origin for origin in parted if not origin.is_rounding), parted[0])
        console.print(f"in {len(parted)} of {COMPARED} samples: {told}", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


def _weights(state_dict: Path | None, rename: str | None) -> Weights | None:
    if state_dict is not None:
        return Weights(state_dict, rename)
    if rename is not None:
        raise InvalidEntry(f"rename: it is '{rename}', but there is no --state-dict whose keys it is about")
    return None


def _disagreement(other: Sequence[FirstDifference]) -> str:
    """Return how a network is another than its framework's, by the samples in which it is not rounding."""
    return f"{len(other)} of {COMPARED} random samples differ from its framework by more than rounding: {other[0]}"


def _compared(
    converted: ConvertedNetwork, network: Network, framework: Framework
) -> tuple[list[LayerParity], list[FirstDifference]]:
    """Compare a network with a framework's modules on random samples, and show it; return also where samples part."""
    inputs, theirs, factor = random_run(converted, framework, COMPARED)
    parity = compare(converted, theirs, ReferenceEngine(network), inputs)
    title = f"{framework.name} {framework.version} against the reference engine, {COMPARED} random samples"
    console.print(table(parity, title if factor == 1 else f"{title} times {factor} so that neurons spike"))
    for row in parity:
        if row.spikes == 0:
            console.print(f"'{row.node}' was silent on these samples, which says little", highlight=False)
    return parity, judged(parity, network, inputs)


def _card(
    name: str,
    converted: ConvertedNetwork,
    framework: Framework,
    layers: Sequence[LayerParity],
    other: Sequence[FirstDifference],
    parity: list[Parity],
) -> str:
    network = converted.network
    rows = [(layer.node, f"`{layer.module}`", f"{layer.differing} of {layer.neuron_steps}") for layer in layers]
    agreement = (
        f"Neuron-steps in which the reference engine and {framework.name}'s own modules differ, on random inputs. Sums "
        "may round in another order, so that a membrane within rounding of its threshold may fall otherwise.\n\n"
    )
    if other:
        agreement = f"**It computes something else than its framework.** {_disagreement(other)}.\n\n{agreement}"
    return imported_card(
        name,
        f"A spiking network from {framework.name} {framework.version}: {len(network.spec.nodes)} nodes, "
        f"{network.parameter_count} parameters",
        network.spec,
        {"Rule": f"{framework.name} {framework.rule}; each node of the spec says its own"},
        {
            **({"Notes": "\n\n".join(converted.notes)} if converted.notes else {}),
            f"Agreement with {framework.name}": agreement + report_card.table(("node", "module", "differing"), rows),
        },
        parity,
    )
