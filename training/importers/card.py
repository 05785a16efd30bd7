"""The model card of a network from elsewhere: what all of them say, and the facts and sections that a source adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spikeserve.models.spec import Spec
from spikeserve.models.spec.onnx_contract import OnnxContract
from spikeserve.models.spec.parameters import show
from spikeserve.training.report.card import markdown, parity_table
from spikeserve.training.report.parity import Parity


def imported_card(
    name: str,
    origin: str,
    task: Spec | OnnxContract,
    facts: Mapping[str, str],
    sections: Mapping[str, str],
    parity: Sequence[Parity] | None = None,
) -> str:
    """Return the card; `origin` says in half a sentence what the model is and where it came from."""
    sections = dict(sections)
    limits = "It knows only what it was trained on, and nothing here says what that was."
    if parity is not None:
        sections["Agreement of the engines"] = (
            f"Against the reference engine, on random samples.\n\n{parity_table(parity)}"
        )
        limits += " The golden samples are random: they show that engines agree, and not how good its answers are."
    return markdown(
        name,
        f"{origin}, {task.time_steps} time steps, {task.coding} coding.",
        {
            "Input": f"{show(task.input.shape)} values from {task.input.described_range}",
            **_answer(task),
            **facts,
            "Accuracy": "not measured here, for no data came with the model",
        },
        sections | {"Limits": limits},
    )


def _answer(task: Spec | OnnxContract) -> dict[str, str]:
    """Return the card's rows about the model's answer."""
    if task.scores.has_classes:
        given = {"Classes": ", ".join(task.labels)}
    else:
        units = task.units or ("",) * task.classes
        named = (f"{name} ({unit})" if unit else name for name, unit in zip(task.labels, units, strict=True))
        given = {"Values": ", ".join(named)}
    return given | ({"Readout": f"{task.readout}, as {task.scores}"} if isinstance(task, Spec) else {})
