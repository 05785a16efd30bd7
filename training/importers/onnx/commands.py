"""`import onnx`: an external model.onnx as a bundle, once it keeps the contract that the file and the options state."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeserve.models.bundle.copies import repository_at
from spikeserve.models.bundle.repository import require_name
from spikeserve.models.spec import Coding
from spikeserve.models.spec.onnx_contract import AxisLayout, OutputKind
from spikeserve.training.commands.groups import (
    ModelNameOption,
    RepositoryOption,
    console,
    shape_of,
)
from spikeserve.training.commands.input_flags import show_input, with_input_flags
from spikeserve.training.commands.sentences import printable
from spikeserve.training.importers.onnx.dry_run import DryRun, OnnxOptions, dry_run
from spikeserve.training.publish.publish import publish_external
from spikeserve.training.report.card import imported_card

OF_FILE = "what the file says"


@partial(with_input_flags, without=("readout",))
def import_command(
    file: Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)],
    name: ModelNameOption,
    input_shape: Annotated[
        str | None, typer.Option(help="Of one sample at one step, such as 2,34,34.", show_default=OF_FILE)
    ] = None,
    repository: RepositoryOption = "repository",
    time_steps: Annotated[
        int | None, typer.Option(help="Steps per sample.", show_default="what the file says, or 1")
    ] = None,
    any_time_steps: Annotated[
        bool, typer.Option("--any-time-steps", help="A request may ask for others.", show_default="it may not")
    ] = False,
    independent_rows: Annotated[
        bool,
        typer.Option(
            "--independent-rows",
            help="You promise that no sample's output depends on the others of a batch; requests may then share a run.",
            show_default="samples are run one by one",
        ),
    ] = False,
    coding: Annotated[Coding, typer.Option(help="How a sample becomes steps.")] = Coding.DIRECT,
    layout: Annotated[
        AxisLayout, typer.Option(help="The axes of the model's input before a sample's.")
    ] = AxisLayout.BATCH,
    output_kind: Annotated[OutputKind, typer.Option(help="What the model's output is.")] = OutputKind.SCORES,
    output_name: Annotated[
        str | None, typer.Option(help="The model's output.", show_default="the only one of numbers for each class")
    ] = None,
    *,
    declared: dict[str, Any],
) -> None:
    """Publish an external ONNX model as a model's next version, under a contract of what it takes and gives."""
    require_name(name)
    answer = {name: declared.pop(name, None) for name in ("labels", "scores", "units")}
    options = OnnxOptions(
        input_shape=None if input_shape is None else shape_of(input_shape),
        time_steps=time_steps,
        any_time_steps=any_time_steps,
        independent_rows=independent_rows,
        coding=coding,
        layout=layout,
        output_kind=output_kind,
        output_name=output_name,
        **answer,
        declared=declared,
    )
    model = dry_run(file, options)
    contract = model.contract
    card = _card(model, file.name, name)
    published = publish_external(contract, model.content, repository_at(repository), name, card)
    for sentence in model.changes:
        console.print(printable(sentence[0].upper() + sentence[1:]), highlight=False, markup=False)
    show_input(contract.input)
    kind = contract.scores if contract.output_kind is OutputKind.SCORES else contract.output_kind
    console.print(
        printable(f"Output: '{contract.output_name}', {kind}: {', '.join(contract.labels[:20])}")
        + (f" and {contract.classes - 20} more" if contract.classes > 20 else ""),
        highlight=False,
        markup=False,
    )
    if contract.independent_rows:
        console.print(
            f"Largest batch: {model.largest_batch}"
            if model.largest_batch > 1
            else "Samples are run one by one: in a batch the last bits of their scores differ, or two take long"
        )
    published.show(console)


def _card(model: DryRun, file_name: str, name: str) -> str:
    contract = model.contract
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(model.opsets.items()))
    sees = contract.input_layout.shown(contract.input.shape)
    gives = contract.output_layout.shown((contract.classes,))
    facts = {
        "The model sees": f"`{contract.input_name}`, {sees}",
        "Output": f"`{contract.output_name}`, {gives}, {contract.output_kind} ({contract.scores})",
        "Operator sets": opsets,
        "Operators": ", ".join(model.operators),
        **({"Changed from the file": "; ".join(model.changes)} if model.changes else {}),
        "Engine": "only `onnx` runs it, so that nothing was compared spike for spike; its neurons, their spikes and "
        "synaptic operations are not known",
    }
    return imported_card(name, f"An external ONNX model from `{file_name}`", contract, facts, {})
