"""Any forward becomes a graph of one step, or is refused by one sentence with the author's line.

docs/tracer.md: its network gives the graph, the readout and the program that the page tells of.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Coding, Readout
from spikeserve.plugins.frameworks import tracer
from spikeserve.plugins.frameworks.compare import compare, random_encoded, run_framework
from spikeserve.plugins.frameworks.convert import ConvertedNetwork, convert
from spikeserve.plugins.frameworks.framework import find
from spikeserve.plugins.frameworks.options import FrameworkOptions
from spikeserve.training.errors import NotConvertible
from tests.pages import ROOT, blocks
from tests.plugins.frameworks.plain_network import PLAIN, Cell, Hidden, Spike, Steps, taken_in

SIZE = 16


class Net(nn.Module):
    """Modules that a test's own forward calls as it likes."""

    norms: nn.ModuleList
    kept: Tensor | None

    def __init__(self, way: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(SIZE, SIZE), nn.Linear(SIZE, SIZE), nn.Linear(SIZE, 5)
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm1d(SIZE)
        self.cell, self.cell2, self.hidden, self.hidden2, self.steps = Cell(), Cell(), Hidden(), Hidden(), Steps()
        self.way, self.rectifier = way, nn.ReLU()
        for layer in (self.fc1, self.fc2, self.fc3, self.conv):
            layer.weight.data *= 4

    def forward(self, x: Tensor) -> Any:
        return self.way(self, x)


def each_step(way: Callable[[Any, Tensor], Tensor]) -> Net:
    """A network that loops over its first axis and stacks what it makes of each step."""

    def forward(net: Net, steps: Tensor) -> Tensor:
        net.hidden.reset()
        net.hidden2.reset()
        return torch.stack([way(net, step) for step in steps])

    return Net(forward)


def shown(found: ConvertedNetwork) -> str:
    """Each node, with its inputs where they are not just the node before it: `fc1 mul(fc1,input) hidden`."""
    return " ".join(
        node.name + (f"({','.join(node.inputs)})" if node.inputs else "") for node in found.network.spec.nodes
    )


def require_same_spikes(found: ConvertedNetwork) -> None:
    inputs = random_encoded(found.network.spec, 16)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(found.network), inputs)
    assert rows
    assert [row.differing for row in rows] == [0] * len(rows)
    assert all(row.spikes != 0 for row in rows)


def handed_on(net: Net, steps: Tensor) -> tuple[Tensor, Tensor]:
    membrane, counted, membranes = torch.zeros(steps.shape[1], SIZE), [], []
    for step in range(8):
        spikes, membrane = net.cell(net.fc1(steps[step]), membrane)
        counted.append(spikes)
        membranes.append(membrane)
    return torch.stack(counted), torch.stack(membranes)


def batch_first(net: Net, samples: Tensor) -> dict[str, Any]:
    net.hidden.reset()
    total: Any = 0.0
    for step in range(samples.size(1)):
        total = total + net.hidden(net.fc1(samples[:, step]))
    return {"rates": total / samples.size(1), "steps": samples.size(1)}


def in_place(net: Net, samples: Tensor) -> Tensor:
    net.hidden.reset()
    total = torch.zeros(samples.size(0), SIZE)
    for step in range(samples.size(1)):
        total += net.hidden(net.fc1(samples[:, step]))
    return total


def written(net: Net, steps: Tensor) -> Tensor:
    net.hidden.reset()
    out = torch.zeros(steps.size(0), steps.size(1), SIZE)
    for place, step in enumerate(steps):
        out[place] = net.hidden(net.fc1(step))
    return out.max(0).values


def repeated(net: Net, samples: Tensor) -> Tensor:
    return net.steps(net.fc1(samples).unsqueeze(0).repeat(8, 1, 1)).mean(0)


def looped(net: Net, samples: Tensor) -> Tensor:
    net.hidden.reset()
    return torch.stack([net.hidden(net.fc1(samples)) for _ in range(8)]).sum(0)


def called_for_each(net: Net, step: Tensor) -> Tensor:
    return net.hidden(net.fc1(step))


def merged(net: Net, steps: Tensor) -> Tensor:
    time, batch = steps.shape[:2]
    return net.steps(net.fc1(steps.flatten(0, 1)).view(time, batch, -1)).mean(0)


def last_step(net: Net, steps: Tensor) -> Tensor:
    return each_step(called_for_each).way(net, steps)[-1]


def time_last(net: Net, samples: Tensor) -> list[Tensor]:
    net.hidden.reset()
    return [net.hidden(net.fc1(samples[..., step])) for step in range(samples.shape[-1])]


def behind_the_channels(net: Net, samples: Tensor) -> Tensor:
    net.hidden.reset()
    steps = samples.permute(2, 0, 1, 3)
    return torch.stack([net.hidden(net.fc1(step.flatten(1))) for step in steps], dim=1).sum(1)


COUNT, TIME_FIRST, BATCH_FIRST = Readout.SPIKE_COUNT, "time first of (8, batch", "batch first of (batch, 8"
ONE_SAMPLE = "one sample for all steps of (batch"
STYLES: dict[str, tuple[Any, Readout, str, str]] = {
    "membrane handed on, spikes first": (handed_on, COUNT, TIME_FIRST, "fc1 cell"),
    "membrane read": (lambda net, x: handed_on(net, x)[1], Readout.MAX_MEMBRANE, TIME_FIRST, "fc1 cell"),
    "membrane of the last step": (lambda net, x: functional.softmax(handed_on(net, x)[1][-1], dim=1),
        Readout.LAST_MEMBRANE, TIME_FIRST, "fc1 cell"),
    "sigmoid of the last membrane": (lambda net, x: handed_on(net, x)[1][-1].sigmoid(), Readout.LAST_MEMBRANE,
        TIME_FIRST, "fc1 cell"),
    "sigmoid of a mean": (lambda net, x: nn.Sigmoid()(net.steps(net.fc1(x)).mean(0)), Readout.MEAN, TIME_FIRST,
        "fc1 steps"),
    "sigmoid of the last step": (lambda net, x: torch.sigmoid(last_step(net, x)), Readout.LAST, TIME_FIRST,
        "fc1 hidden"),
    "batch first, added up": (batch_first, Readout.MEAN, BATCH_FIRST, "fc1 hidden"),
    "batch first, added in place": (in_place, COUNT, BATCH_FIRST, "fc1 hidden"),
    "written to a buffer": (written, Readout.MAX, TIME_FIRST, "fc1 hidden"),
    "one sample repeated": (repeated, Readout.MEAN, ONE_SAMPLE, "fc1 steps"),
    "one sample in a loop": (looped, COUNT, ONE_SAMPLE, "fc1 hidden"),
    "called for each step": (called_for_each, COUNT, "one step of (batch", "fc1 hidden"),
    "time and batch in one axis": (merged, Readout.MEAN, TIME_FIRST, "fc1 steps"),
    "last step": (last_step, Readout.LAST, TIME_FIRST, "fc1 hidden"),
    "a layer that runs at the last step only": (lambda net, x: net.fc3(last_step(net, x)), Readout.LAST, TIME_FIRST,
        "fc1 hidden fc3"),
    "a Linear of a mean is the mean of the Linear": (lambda net, x: net.fc3(net.steps(net.fc1(x)).mean(0)),
        Readout.MEAN, TIME_FIRST, "fc1 steps fc3"),
    "time last": (time_last, COUNT, "batch first, time later of (batch", "fc1 hidden"),
}  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_the_styles_of_a_loop_over_time_are_one_graph(style: str) -> None:
    way, readout, layout, nodes = STYLES[style]
    found = taken_in(Net(way), SIZE)
    assert (shown(found), found.network.spec.readout) == (nodes, readout)
    assert found.graph.layout.startswith(layout)
    assert found.network.spec.coding is (Coding.DIRECT if layout is ONE_SAMPLE else Coding.SPIKES)
    require_same_spikes(found)


def negated(net: Net, steps: Tensor) -> Tensor:
    """Add up values of which PyTorch does not show that all but the first become their negatives."""
    total = net.fc3(net.steps(net.fc1(steps))).sum(0)
    total.data[:, 1:] *= -1
    return total


@pytest.mark.parametrize("unit", [2.0**-20, 1.0, 2.0**20])
def test_an_answer_in_any_unit_is_compared_in_that_unit(unit: float) -> None:
    for way in (negated, lambda net, steps: net.fc3(net.steps(net.fc1(steps))).sum(0)):
        net = Net(way)
        net.fc3.weight.data, net.fc3.bias.data = net.fc3.weight * unit, net.fc3.bias * unit
        if way is negated:
            assert "what it returns is not the sum over time of 'fc3'" in refused(net, SIZE)
        else:
            require_same_spikes(taken_in(net, SIZE))


def test_weights_of_large_integers_are_proven_as_such() -> None:
    net = each_step(lambda net, step: net.hidden(net.fc1(step)))
    net.fc1 = nn.Linear(784, 128, bias=False)  # of the range 0 to 1 it makes thousands, which round by 1e-3
    net.fc1.weight.data = torch.randint(-127, 128, (128, 784)).float()
    require_same_spikes(taken_in(net, 784))


def test_the_authors_own_answer_is_compared() -> None:
    found = taken_in(Net(lambda net, steps: net.fc3(net.steps(net.fc1(steps))).mean(0)), SIZE)
    inputs = random_encoded(found.network.spec, 16)
    theirs, forward = run_framework(found, PLAIN, inputs), found.graph.answer
    assert forward is not None

    def other(steps: Tensor) -> Tensor:  # an author's forward that gives another value for one class
        returned = forward(steps)
        return returned + 1e-3 * returned.abs().max() * torch.eye(5)[2]

    changed = replace(found, graph=replace(found.graph, answer=other))
    same, rows = (compare(each, theirs, ReferenceEngine(found.network), inputs) for each in (found, changed))
    assert [(row.node, row.differing) for row in same] == [("steps", 0), ("fc3", 0), ("(the answer)", 0)]
    assert [(row.node, row.differing) for row in rows] == [("steps", 0), ("fc3", 0), ("(the answer)", 16)]
    broken = replace(found, graph=replace(found.graph, answer=lambda steps: steps.view(7)))
    with pytest.raises(NotConvertible, match=r"its answer to random samples is not comparable: shape '\[7\]' is inv"):
        compare(broken, theirs, ReferenceEngine(found.network), inputs)


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x)[0]


def test_a_function_without_a_node_is_named_with_the_module_that_runs_it() -> None:
    net = each_step(lambda net, step: net.hidden(net.inner(step)))
    net.inner = Inner()
    assert re.search(r"test_trace\.py, line \d+, in 'inner' \(Inner\): torch\.sort has no node", refused(net, SIZE))


def test_a_fault_of_the_importer_is_told_as_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    code = compile("def describe(*_): first, *_ = ()", tracer.__file__, "exec")
    faulty: dict[str, Any] = {}
    exec(code, faulty)  # noqa: S102  (a fault in a line of the tracer's file)
    monkeypatch.setattr(tracer.Tracer, "describe", faulty["describe"])
    found = refused(each_step(lambda net, step: net.hidden(net.fc1(step))), SIZE)
    assert re.search(r"the importer fails in its tracer\.py, line 1, a fault to report, at test_trace\.py, line", found)
    assert "its forward fails" not in found


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_start_that_is_drawn_is_refused_with_its_cure(*, by_hand: bool) -> None:
    def drawing(net: Net, steps: Tensor) -> Tensor:
        spikes, membrane = [], torch.rand_like(net.fc1(steps[0]))
        for step in steps:
            charged = 0.5 * membrane + net.fc1(step)
            spike, membrane = (charged > 1).float(), charged * (charged <= 1)
            spikes.append(spike)
        return torch.stack(spikes)

    def handed(net: Net, steps: Tensor) -> Tensor:
        spikes, membrane = [], torch.rand(steps.shape[1], SIZE)
        for step in steps:
            spike, membrane = net.cell(net.fc1(step), membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    way = drawing if by_hand else handed
    assert "is given a state that begins at random; --start rest lets it begin at 0" in refused(Net(way), SIZE)
    require_same_spikes(taken_in(Net(way), SIZE, start="rest"))


def test_an_input_and_spikes_that_are_delayed_by_hand_come_in() -> None:
    def delayed(net: Net, steps: Tensor) -> Tensor:
        before, spikes, first, second = torch.zeros(4, steps.shape[1], SIZE)
        out = []
        for step in steps:
            first, current = 0.75 * first + net.fc1(before), net.fc2(spikes)
            before, spikes = step, (first > 0.25).float()
            second, first = 0.75 * second + current, first - spikes
            out.append((second > 0.25).float())
            second = second - out[-1]
        return torch.stack(out)

    require_same_spikes(taken_in(Net(delayed), SIZE))


def test_a_state_that_one_call_does_not_show_is_found_by_the_answer() -> None:
    def echoing(net: Net, step: Tensor) -> Tensor:  # adds the input of the step before, which it keeps
        before, net.kept = torch.zeros(len(step), SIZE) if net.kept is None else net.kept, step
        return net.fc1(step) + net.fc1(before)

    def reset() -> None:
        net.kept = None

    net: Any = Net(echoing)
    net.reset = reset
    net.reset()
    found = taken_in(net, SIZE)
    inputs = random_encoded(found.network.spec, 16)
    rows = compare(found, run_framework(found, PLAIN, inputs), ReferenceEngine(found.network), inputs)
    assert (rows[-1].node, rows[-1].differing) == ("(the answer)", 16 * SIZE)


def test_time_may_be_among_the_axes_of_a_sample() -> None:
    found = taken_in(Net(behind_the_channels), 2, SIZE // 2)
    require_same_spikes(found)
    assert found.network.spec.readout is COUNT


def test_a_coding_that_is_given_counts_also_where_a_forward_repeats_its_sample() -> None:
    assert taken_in(Net(looped), SIZE, coding=Coding.RATE).network.spec.coding is Coding.RATE


def test_steps_and_batch_are_as_many_as_the_forward_wants() -> None:
    def fixed(net: Net, steps: Tensor) -> Tensor:
        net.hidden.reset()
        return torch.stack([net.hidden(net.fc1(steps[step].view(128, -1))) for step in range(8)])

    found = taken_in(Net(fixed), 1, 4, 4, batch=128)
    assert shown(found) == "fc1_flat fc1 hidden"
    assert re.search(
        r"its forward fails: test_trace\.py, line \d+: shape '\[128, -1\]' is invalid.*; with --batch 128 it runs$",
        refused(Net(fixed), 1, 4, 4),
    )


def test_time_and_batch_of_one_size_are_told_apart() -> None:
    # The batch is 8, as many as there are steps: only what the loop takes out says which axis is time.
    assert taken_in(Net(in_place), SIZE, batch=8).network.spec.readout is Readout.SPIKE_COUNT


RELU = "fc1 relu_row relu_zeros relu_both(relu_row,relu_zeros) relu_greater relu hidden"
# What a forward does at each step, and the nodes that it becomes. Sums are added in the author's order: of
# (a + b) + (c + d) the second sum is a node.
GRAPHS = [
    ("net.hidden2(net.fc2(spikes := net.hidden(net.fc1(x))) + spikes)", "fc1 hidden fc2 hidden2(fc2,hidden)"),
    ("net.hidden(x + (net.fc1(x) + net.fc2(x)))", "fc1 fc2(input) hidden(fc1,fc2,input)"),
    ("net.hidden(((one := net.fc1(x)) + x) + (net.fc2(x) + one))",
        "fc1 fc2(input) sum_2(fc2,fc1) hidden(fc1,input,sum_2)"),
    ("net.hidden(net.fc1(x) + x + x)", "fc1 sum_2(fc1,input) hidden(sum_2,input)"),
    ("net.hidden(net.fc1(x) + net.fc1(x))", "fc1 scale hidden"),
    ("net.hidden2(net.fc1(net.hidden(net.fc1(x))))", "fc1 hidden fc1_2 hidden2"),
    ("net.hidden(0.5 * net.fc1(x))", "fc1 scale hidden"),
    ("net.hidden(functional.dropout(net.fc1(functional.relu(x).contiguous().clone().float()), 0.3, "
        "net.training) + 0)", "fc1 hidden"),
    ("net.hidden(net.fc1(x) * x)", "fc1 mul(fc1,input) hidden"),
    ("net.hidden(x * (1 - net.hidden2(net.fc1(x))))", "fc1 hidden2 shift mul(input,shift) hidden"),
    ("net.hidden(x - net.fc1(x))", "fc1 scale hidden(input,scale)"),
    ("net.hidden(net.fc1(x) + 0.25)", "fc1 shift hidden"),
    ("net.hidden(torch.cat([net.fc1(x), x], 1))", "fc1 cat(fc1,input) hidden"),
    ("net.hidden(net.fc1(x).view(-1, 4, 4).transpose(1, 2).reshape(-1, SIZE))",
        "fc1 hidden_reshaped hidden_permuted hidden_flat hidden"),
    ("net.hidden(net.fc1(x)[:, 4:12])", "fc1 part hidden"),
    ("net.hidden(net.fc1(x).view(-1, 4, 2, 2)[:, 2:].flatten(1))",
        "fc1 part_reshaped part_rows part part_shaped hidden_flat hidden"),
    ("net.hidden(net.conv(x.view(-1, 1, 2, 8))[..., 3:6].flatten(1))",
        "conv_reshaped conv part_permuted part_rows part part_shaped hidden_permuted hidden_flat hidden"),
    ("net.hidden(x.view(-1, 4, 2, 2) * net.fc1(x).view(-1, 4, 2, 2).sum(-2, keepdim=True))",
        "fc1 sum_pool_reshaped sum_pool spread mul_reshaped(input) mul(mul_reshaped,spread) hidden"),
    ("net.hidden(x.view(-1, 4, 4) @ net.hidden2(net.fc1(x)).view(-1, 4, 4).transpose(1, 2))",
        "fc1 hidden2 matmul_reshaped(input) matmul_reshaped_2(hidden2) matmul_permuted "
        "matmul(matmul_reshaped,matmul_permuted) hidden"),
    ("net.hidden(x @ net.fc1.weight.t())", "linear hidden"),
    ("net.hidden(functional.linear(x, net.fc1.weight) * functional.linear(x, net.fc2.weight))",
        "linear linear_2(input) mul(linear,linear_2) hidden"),
    ("net.hidden(net.norm(net.fc1(x)))", "fc1 hidden"),
    ("net.hidden(net.norm((current := net.fc1(x))) + current)", "fc1 norm hidden(norm,fc1)"),
    ("net.hidden(functional.relu(net.fc1(x)))", RELU),
    ("net.hidden(net.rectifier(net.fc1(x)))", RELU),
    ("net.hidden2(net.fc2(functional.relu(net.hidden(net.fc1(x)))))", "fc1 hidden fc2 hidden2"),
    ("net.hidden(functional.avg_pool2d(functional.max_pool2d(net.conv(x.view(-1, 1, 4, 4)), 2), (2, "
        "1)).mean((2, 3)))", "conv_reshaped conv max_pool2d avg_pool2d average_pool hidden_flat hidden"),
    ("(net.fc2(x), net.hidden(net.fc1(x)))[1]", "fc1 hidden"),
]  # fmt: skip


@pytest.mark.parametrize(("forward", "nodes"), GRAPHS)
def test_what_a_forward_does_between_its_modules_is_nodes(forward: str, nodes: str) -> None:
    way = eval(f"lambda net, x: {forward}", {"torch": torch, "functional": functional, "SIZE": SIZE})  # noqa: S307
    found = taken_in(each_step(way), SIZE)
    assert shown(found) == nodes
    require_same_spikes(found)


def refused(network: nn.Module, *shape: int) -> str:
    with pytest.raises(NotConvertible) as error:
        taken_in(network, *shape)
    (sentence,) = str(error.value).splitlines()
    return sentence


def differing_steps(net: Net, steps: Tensor) -> Tensor:
    return torch.stack([net.hidden(net.fc1(x) if place else net.fc2(x)) for place, x in enumerate(steps)])


def halved_state(net: Net, steps: Tensor) -> Tensor:
    membrane, out = None, []
    for step in steps:
        spikes, membrane = net.cell(net.fc1(step), membrane)
        membrane = membrane * 0.5
        out.append(spikes)
    return torch.stack(out)


def reset_within(net: Net, steps: Tensor) -> Tensor:
    out = []
    for step in steps:
        net.hidden.reset()
        out.append(net.hidden(net.fc1(step)))
    return torch.stack(out)


def written_through_a_view(net: Net, x: Tensor) -> Tensor:
    current = net.fc1(x)
    current.view(-1).mul_(2)
    return net.hidden(current)


def run_twice(net: Net, x: Tensor) -> Tensor:
    net.hidden(net.fc1(x))
    return net.hidden(net.fc2(x))


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "sort": (each_step(lambda net, x: net.hidden(torch.sort(net.fc1(x))[0])), "LINE: torch.sort has no node"),
    "activation": (each_step(lambda net, x: net.hidden(functional.silu(x))),
        "LINE: torch.nn.functional.silu has no node; train the network with ReLU in its place"),
    "quotient": (each_step(lambda net, x: net.hidden(x / net.fc1(x))), "LINE: torch.Tensor.div takes two values that"),
    "encoder": (Net(lambda net, x: net.steps(net.fc1(torch.bernoulli(torch.clamp(x, 0, 1).repeat(8, 1, 1))))),
        "LINE: torch.bernoulli draws at random"),
    "other steps than its argument": (Net(lambda net, x: net.steps(net.fc1(x).repeat(5, 1, 1)).sum(0)),
        "it runs 5 steps, and --time-steps is 8"),
    "branch on values": (each_step(lambda net, x: net.hidden(net.fc1(x)) if x.sum() > 0 else x),
        "LINE: torch.Tensor.__bool__ reads values of the network into Python"),
    "one value": (each_step(lambda net, x: net.fc1(x)[:, 3]), "LINE: torch.Tensor.__getitem__ takes one value out of"),
    "backwards": (Net(lambda net, x: torch.stack([net.hidden(net.fc1(step)) for step in x.flip(0)])),
        "LINE: torch.Tensor.flip has no node"),
    "steps in another order": (Net(lambda net, x: torch.stack([net.hidden(net.fc1(x[step])) for step in (1, 0, 2, 3, 4,
        5, 6, 7)])), "'hidden' takes step 1 of its input as its step 0"),
    "steps that differ": (Net(differing_steps),
        "'hidden' takes 'fc2' first and 'fc1' in its call 1: the steps are not copies of each other"),
    "where a maximum is": (each_step(lambda net, x: net.hidden(net.fc1(x) * net.fc1(x).max(1, keepdim=True).indices)),
        "LINE: torch.Tensor.max gives more than one thing, of which only the first has a node"),
    "steps and samples in one axis": (Net(lambda net, x: net.steps(net.fc1(x.flatten(0, 1)))),
        "is given time·batch; steps and samples in one axis share a state, so reshape before it"),
    "twice in a step": (each_step(run_twice), "'hidden' runs more than once in a step, and would share its state"),
    "state touched": (Net(halved_state), "LINE: 'cell' is given a state that is changed at its step 1"),
    "a state of its own making": (Net(lambda net, x: torch.stack([net.cell(net.fc1(step),
        torch.zeros(SIZE))[0] for step in x])), "LINE: 'cell' is given a state of its own making at its step 1"),
    "reset within": (Net(reset_within), "'hidden' gives other values in the forward than when it is stepped from rest"),
    "some steps": (Net(lambda net, x: torch.stack([net.hidden(net.fc1(step)) for step in x])[3:].sum(0)),
        "LINE: what it returns is of 5 of its 8 steps, expected all of them or the last"),
    "written in place": (each_step(written_through_a_view), "LINE: what it takes was written to in place"),
    "noise": (each_step(lambda net, x: net.hidden(torch.rand_like(x) * net.fc1(x))),
        "LINE: torch.rand_like draws at random, and the same input has to give the same answer"),
    "membrane as a signal": (Net(lambda net, x: torch.stack([net.fc2(net.cell(net.fc1(step))[1]) for step in x])),
        "LINE: 'fc2' takes a neuron's membrane"),
    "nothing of its input": (Net(lambda _, __: torch.zeros(3)), "what it returns does not depend on its input"),
    "nothing at all": (Net(lambda _, __: None), "its forward returns nothing: let your factory return a module whose"),
    "fails": (Net(lambda net, x: net.fc1(x[:, :, :, 0])), "its forward fails"),
}  # fmt: skip


@pytest.mark.parametrize("way", REFUSED)
def test_what_cannot_be_folded_is_refused_by_one_sentence_with_its_line(way: str) -> None:
    network, sentence = REFUSED[way]
    found = refused(network, SIZE)
    pattern = re.escape(sentence).replace("LINE", r"test_trace\.py, line \d+")
    assert re.search(pattern, found), found
    assert found.startswith("the network (Net) cannot be folded into a graph: given ")
    assert "--batch" not in found  # no other size would do


def test_a_refusal_that_another_layout_explains_counts_less_than_a_failure() -> None:
    def one_sample(net: Net, x: Tensor) -> Tensor:
        if x.dim() == 2:
            return net.fc1(x[0])  # of the batch, where it is given one step
        raise ValueError("expected two axes")

    assert "its forward fails: test_trace.py, line" in refused(Net(one_sample), SIZE)


class Told(Net):
    """A network whose forward takes the number of steps."""

    def forward(self, x: Tensor, num_steps: int) -> Tensor:  # type: ignore[override]
        self.hidden.reset()
        return torch.stack([self.hidden(self.fc1(x)) for _ in range(num_steps)])


class ToldLess(Told):
    """The same, with a number of its own that is not the caller's."""

    def forward(self, x: Tensor, num_steps: int = 3) -> Tensor:
        return super().forward(x, num_steps)


class GivenState(Net):
    """A network whose caller hands it a membrane."""

    def forward(self, x: Tensor, membrane: Tensor) -> Any:  # type: ignore[override]
        return self.cell(self.fc1(x), membrane)


@pytest.mark.parametrize("kind", [Told, ToldLess])
def test_a_forward_that_takes_a_number_of_steps_is_given_it(kind: type[Told]) -> None:
    found = taken_in(kind(batch_first), SIZE)
    require_same_spikes(found)
    assert found.network.spec.time_steps == 8


def test_a_forward_that_takes_anything_else_is_refused_by_its_name() -> None:
    with pytest.raises(NotConvertible, match=r"\(GivenState\): its forward takes 'membrane' beside its input"):
        taken_in(GivenState(batch_first), SIZE)


def hidden_and_output(net: Net, steps: Tensor) -> dict[str, Tensor]:
    net.hidden.reset()
    net.hidden2.reset()
    first = [net.hidden(net.fc1(step)) for step in steps]
    return {"hidden": torch.stack(first), "output": torch.stack([net.hidden2(net.fc3(spikes)) for spikes in first])}


def test_of_several_values_the_chosen_one_is_read() -> None:
    first = taken_in(Net(hidden_and_output), SIZE)
    assert first.network.spec.classes == SIZE
    note = "Of what its forward returns 'hidden' is read, unless --answer names another: 'output'."
    assert list(first.notes) == [note]
    chosen = taken_in(Net(hidden_and_output), SIZE, answer="output")
    require_same_spikes(chosen)
    assert chosen.network.spec.classes == 5
    assert not chosen.notes
    with pytest.raises(
        NotConvertible, match=r"answer: '3' is none of what its forward returns, expected hidden, output"
    ):
        taken_in(Net(hidden_and_output), SIZE, answer="3")


def test_spikes_and_their_own_membrane_need_no_choice() -> None:
    assert not taken_in(Net(handed_on), SIZE).notes


class Doubled(nn.Module):
    """A part that adds to what its module gives."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * 2


class Stack(nn.Sequential):
    """A subclass of nn.Sequential that adds nothing."""


def test_parts_of_any_class_are_traced_and_a_sequential_of_another_name_says_its_order() -> None:
    found = taken_in(nn.Sequential(Spike(), Doubled(), Spike()), 4)
    assert [node.type for node in found.network.spec.nodes] == ["Threshold", "Linear", "Scale", "Threshold"]
    assert shown(taken_in(Stack(nn.Linear(4, 4), Hidden()), 4)) == "linear_0 hidden_1"


def norms_of(steps: int) -> nn.ModuleList:
    """Batch norms with means and factors of their own."""
    norms = [nn.BatchNorm1d(SIZE) for _ in range(steps)]
    for number, norm in enumerate(norms):
        norm.running_mean = torch.full((SIZE,), number / 4)
        norm.weight.data.fill_(1.0 + number)
    return nn.ModuleList(norms)


def test_each_step_has_the_batch_norm_that_it_takes() -> None:
    def forward(net: Net, steps: Tensor) -> Tensor:
        net.hidden.reset()
        order = [0, 2, 1, 3, 4, 5, 6, 2]
        return torch.stack([net.hidden(net.norms[at](net.fc1(step))) for at, step in zip(order, steps, strict=True)])

    network = Net(forward)
    network.norms = norms_of(8)
    found = taken_in(network.eval(), SIZE)
    # Whichever module a step takes, that one's values are the step's.
    assert found.network.tensors["norms_0.scale"][:, 0].tolist() == pytest.approx([1, 3, 2, 4, 5, 6, 7, 3], rel=1e-4)
    require_same_spikes(found)


def test_a_batch_norm_of_each_step_that_something_else_takes_too_is_refused() -> None:
    def forward(net: Net, steps: Tensor) -> Tensor:
        net.hidden.reset()
        net.hidden2.reset()
        normed = [net.norms[at](net.fc1(step)) for at, step in enumerate(steps)]
        return torch.stack([net.hidden2(net.fc2(net.hidden(each)) + normed[0]) for each in normed])

    network = Net(forward)
    network.norms = norms_of(8)
    assert "takes values of step" in refused(network.eval(), SIZE)


PAGE = (ROOT / "docs/tracer.md").read_text()


def test_the_pages_network_is_the_graph_and_the_program_that_stand_there() -> None:
    (source,), (written,) = blocks(PAGE, "python"), blocks(PAGE, "json")
    space: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(compile(source, "page.py", "exec"), space)  # noqa: S102
    network = space["Net"]().eval().requires_grad_(requires_grad=False)
    found = convert(network, find("torch"), FrameworkOptions(input_shape=(2,), time_steps=4))
    assert "forward" not in vars(network.fc)  # which is as it was before its run
    assert [node.path for node in found.graph.nodes] == ["input", "fc", "neuron"]
    assert (found.graph.readout.node, found.graph.readout.over) == (2, "sum")
    node = found.network.spec.nodes[-1].model_dump(mode="json", exclude_none=True)
    assert node == json.loads(written)


def test_the_page_names_modules_that_are_there() -> None:
    folder = ROOT / "plugins/frameworks"
    named = [name for names in re.findall(r"\((`\w+`(?:, `\w+`)*)\)", PAGE) for name in re.findall(r"\w+", names)]
    assert len(named) >= 9
    assert [name for name in named if not (folder / f"{name}.py").exists()] == []
