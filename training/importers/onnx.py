"""`import onnx`: an external model.onnx as a bundle, once it keeps the contract that the options state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from models.bundle.repository import ModelRepository, require_name
from models.engines.onnx import fields as onnx_fields
from models.engines.onnx.engine import open_session
from models.engines.onnx.fields import Outline
from models.errors import InvalidBundle, InvalidInput
from models.spec import Coding
from models.spec.onnx_contract import AxisLayout, OnnxContract, OutputKind
from training.commands.groups import ModelNameOption, RepositoryOption, console, labels_of, shape_of
from training.commands.input_flags import show_input, with_input_flags
from training.importers.card import imported_card
from training.publish.publish import publish_external


@dataclass(frozen=True)
class OnnxFile:
    """A model as it lies on disk: its bytes, what it asks of a runtime, and the names of its inputs and outputs."""

    name: str
    content: bytes
    outline: Outline
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """Read a model and refuse what could not be served; raises InvalidBundle."""
        if path.stat().st_size > onnx_fields.MAX_BYTES:
            raise InvalidBundle(
                f"{path.name}: has {path.stat().st_size} bytes, expected at most {onnx_fields.MAX_BYTES}"
            )
        content = path.read_bytes()
        outline = onnx_fields.outline(content)
        session = open_session(content, threads=1)
        inputs, outputs = (
            tuple(value.name for value in values) for values in (session.get_inputs(), session.get_outputs())
        )
        return cls(path.name, content, outline, inputs, outputs)


@with_input_flags
def import_command(
    file: Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)],
    name: ModelNameOption,
    input_shape: Annotated[str, typer.Option(help="Of one sample at one step, such as 2,34,34.", show_default=False)],
    labels: Annotated[str, typer.Option(help="The classes' names, with commas between them.", show_default=False)],
    repository: RepositoryOption = Path("repository"),
    time_steps: Annotated[int, typer.Option(help="Steps per sample.")] = 1,
    any_time_steps: Annotated[
        bool, typer.Option("--any-time-steps", help="A request may ask for others.", show_default="it may not")
    ] = False,
    coding: Annotated[Coding, typer.Option(help="How a sample becomes steps.")] = Coding.DIRECT,
    layout: Annotated[
        AxisLayout, typer.Option(help="The axes of the model's input before a sample's.")
    ] = AxisLayout.BATCH,
    output_kind: Annotated[OutputKind, typer.Option(help="What the model's output is.")] = OutputKind.SCORES,
    input_name: Annotated[str | None, typer.Option(help="The model's input.", show_default="its only one")] = None,
    output_name: Annotated[str | None, typer.Option(help="The model's output.", show_default="its only one")] = None,
    *,
    declared: dict[str, Any],
) -> None:
    """Publish an external ONNX model as a model's next version, under a contract of what it takes and gives."""
    require_name(name)
    model = OnnxFile.read(file)
    fields: dict[str, Any] = {
        "input": {"shape": shape_of(input_shape), **declared},
        "coding": coding,
        "time_steps": time_steps,
        "any_time_steps": any_time_steps,
        "labels": labels_of(labels),
        "input_name": input_name or _only(model.inputs, "input"),
        "input_layout": layout,
        "output_name": output_name or _only(model.outputs, "output"),
        "output_kind": output_kind,
    }
    contract = OnnxContract.of(fields)
    card = _card(model, contract, name)
    published = publish_external(contract, model.content, ModelRepository(repository), name, card)
    show_input(contract.input)
    published.show(console)


def _only(names: tuple[str, ...], kind: str) -> str:
    if len(names) != 1:
        raise InvalidInput(f"--{kind}-name is missing, and the model has {len(names)} {kind}s: {', '.join(names)}")
    return names[0]


def _card(file: OnnxFile, contract: OnnxContract, name: str) -> str:
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(file.outline.opsets.items()))
    sees = contract.input_layout.shown(contract.input.shape)
    gives = contract.output_layout.shown((contract.classes,))
    facts = {
        "The model sees": f"`{contract.input_name}`, {sees}",
        "Output": f"`{contract.output_name}`, {gives}, {contract.output_kind}",
        "Operator sets": opsets,
        "Operators": ", ".join(sorted({operator for _, operator in file.outline.used})),
        "Engine": "only `onnx` runs it, so that nothing was compared spike for spike; its neurons, their spikes and "
        "synaptic operations are not known",
    }
    return imported_card(name, f"An external ONNX model from `{file.name}`", contract, facts, {})
