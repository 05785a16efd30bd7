"""docs/spec.md names every node, field and rule that there is, and its defaults are those of the code."""

import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import pytest

from spikeserve.models.spec import (
    Coding,
    EventBinning,
    EventRule,
    Input,
    Origin,
    OutOfRange,
    Polarity,
    Readout,
    Spec,
    rules,
)
from spikeserve.models.spec.neuron_parameters import NEURON_PARAMETERS, NeuronParameter
from spikeserve.models.spec.nodes import NeuronBase, Node, NodeBase, ProgramBase, Recurrent

PAGE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()


def tables() -> Iterator[dict[str, str]]:
    """Yield every row of every table of the page, heading to cell."""
    for block in PAGE.split("\n\n"):
        if block.startswith("|"):
            head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines())
            for row in rows:
                yield dict(zip(head, row, strict=True))


ROWS = list(tables())
NODES: tuple[type[NodeBase], ...] = get_args(get_args(Node)[0])
RULES: list[type[StrEnum]] = [Coding, OutOfRange, Readout, Polarity, EventRule, Origin] + [
    rule
    for rule in vars(rules).values()
    if isinstance(rule, type) and issubclass(rule, StrEnum) and rule is not StrEnum
]


NEURONS = [node for node in NODES if issubclass(node, NeuronBase)]


def kind_of(node: type[NodeBase]) -> str:
    """Give the value of a node's `type` field in a bundle."""
    return str(node.model_fields["type"].default)


def named(text: str) -> set[str]:
    """Return the words in backquotes."""
    return set(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_every_node_has_a_row_and_every_field_of_it_is_named(node: type[NodeBase]) -> None:
    assert any(kind_of(node) in named(row.get("node", "")) for row in ROWS)
    assert node.model_fields.keys() - named(PAGE) == set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_value_of_a_rule_is_named(rule: type[StrEnum]) -> None:
    assert {value.value for value in rule} - named(PAGE) == set()


@pytest.mark.parametrize(
    ("model", "prefix"),
    [(Spec, ""), (Input, "input."), (EventBinning, "input.events."), (Recurrent, "recurrent.")],
    ids=["Spec", "Input", "EventBinning", "Recurrent"],
)
def test_the_fields_around_the_nodes_are_named(model: Any, prefix: str) -> None:
    assert {prefix + name for name in model.model_fields} - named(PAGE) == set()


def test_no_row_names_a_field_that_is_none() -> None:
    fields = {name for node in NODES for name in node.model_fields} | set(Spec.model_fields)
    for model, prefix in ((Input, "input"), (EventBinning, "input.events"), (Recurrent, "recurrent")):
        fields |= {f"{prefix}.{name}" for name in model.model_fields}
    values = {value.value for rule in RULES for value in rule}
    heads = {name for row in ROWS if "operation" not in row for name in named(next(iter(row.values())))}
    assert heads - fields - values - {kind_of(node) for node in NODES} - {"charge", "synapse", "fire"} == set()


@pytest.mark.parametrize("parameter", NEURON_PARAMETERS.values(), ids=lambda parameter: parameter.name)
def test_a_parameters_row_is_that_of_the_table(parameter: NeuronParameter) -> None:
    (row,) = (row for row in ROWS if row.get("field") == f"`{parameter.name}`" and "what it is" in row)
    assert row["what it is"] == parameter.meaning
    assert row["range"].removesuffix(", in steps") == parameter.range
    if parameter.default is not None:
        assert row["default"] == f"{parameter.default:g}"


@pytest.mark.parametrize("node", NEURONS, ids=lambda node: node.__name__)
def test_a_neurons_parameters_are_those_of_the_table(node: type[NodeBase]) -> None:
    for name, field in node.model_fields.items():
        if "per_neuron" in str(field.annotation) and not issubclass(node, ProgramBase):
            parameter = NEURON_PARAMETERS[name]
            default = None if field.is_required() else field.default
            assert (default, field.description) == (parameter.default, parameter.meaning), name


@pytest.mark.parametrize("node", NEURONS, ids=lambda node: node.__name__)
def test_a_neurons_default_is_the_one_that_its_row_gives(node: type[NodeBase]) -> None:
    said = {name: row["default"] for row in ROWS if "default" in row for name in named(row["field"])}
    for name, field in node.model_fields.items():
        if name in ("type", "name"):
            continue
        if field.is_required():
            assert said[name].startswith("required"), name
        elif field.default is not None:
            default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
            assert said[name].strip("`") == default, name
