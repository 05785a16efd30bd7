"""The layers for code of one's own: they compute the spec's nodes, train in a plain loop, and become a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spikeserve.models.bundle import Bundle
from spikeserve.models.coding import DenseInputs
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.spec import Readout
from spikeserve.training import library
from spikeserve.training.errors import InvalidConfig, InvalidData, NotConvertible
from spikeserve.training.library import LI, LIF, CubaALIF, CubaLIF, Delay, PerStep, membrane_loss, publish, spike_loss


def moves(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Spots that move up (class 0) or down (class 1) over 8 inputs and 8 steps: (n, 8, 8) and (n,)."""
    x = np.zeros((samples, 8, 8), np.float32)
    for index in range(samples):
        for step in range(8):
            unit = (step + index) % 8
            x[index, step, unit if index % 2 == 0 else 7 - unit] = 1
    return torch.from_numpy(x), torch.arange(samples) % 2


def test_the_public_names_are_what_all_says() -> None:
    public = {name for name in vars(library) if not name.startswith("_") and name != "annotations"}
    assert public == set(library.__all__)


def test_batch_first_is_the_same_network_with_its_axes_swapped() -> None:
    torch.manual_seed(0)
    time_first = nn.Sequential(
        nn.Linear(4, 8), LIF(8, decay=0.75, recurrent=True), Delay(8, longest=3), LI(8, decay=0.5)
    )
    batch_first = nn.Sequential(
        nn.Linear(4, 8),
        LIF(8, decay=0.75, recurrent=True, batch_first=True),
        Delay(8, longest=3, batch_first=True),
        LI(8, decay=0.5, batch_first=True),
    )
    batch_first.load_state_dict(time_first.state_dict())
    steps = torch.rand(6, 5, 4) * 4
    expected = time_first(steps)
    assert expected.abs().sum() > 0
    assert torch.equal(batch_first(steps.transpose(0, 1)).transpose(0, 1), expected)


def test_a_loop_of_ones_own_trains_every_parameter_and_publishes_what_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = moves(64)
    network = nn.Sequential(
        nn.Linear(8, 16),
        CubaLIF(16, decay=0.75, syn_decay=0.5, recurrent=True, learn=("decay", "syn_decay"), batch_first=True),
        nn.Linear(16, 2),
        LIF(2, decay=0.75, learn=("threshold",), batch_first=True),
    )
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-2)
    losses = []
    for _ in range(200):
        loss = spike_loss(network(x), y, batch_first=True)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    published = publish(network, tmp_path, "moves", (x, y), labels=("up", "down"))
    bundle = Bundle.read(published.folder)
    assert bundle.network.spec.labels == ("up", "down")
    answer, _ = ReferenceEngine(bundle.network).run(DenseInputs(x.transpose(0, 1).contiguous().numpy(), 8))
    with torch.no_grad():
        trained = network(x).sum(dim=1)
    # The weights were rounded to their grid: at most a spike in a hundred may fall otherwise.
    assert np.abs(answer.spike_counts - trained.numpy()).sum() <= trained.sum() / 100
    assert float((answer.class_index == y.numpy()).mean()) > 0.9
    assert "of the 64 samples" in (published.folder / "card.md").read_text()


def test_convolutions_and_pools_run_step_by_step_and_batch_norm_is_folded_in(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        PerStep(nn.Conv2d(1, 4, 3, padding=1)),
        PerStep(nn.BatchNorm2d(4)),
        LIF(4, 6, 6, decay=0.5),
        PerStep(nn.MaxPool2d(2)),
        PerStep(nn.Flatten()),
        nn.Linear(36, 3),
        LI(3, decay=0.5),
    )
    x, y = torch.randint(0, 2, (7, 5, 1, 6, 6)).float(), torch.arange(7) % 3
    membrane_loss(network(x.transpose(0, 1)), y).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in network.parameters())
    network.eval()
    with torch.no_grad():
        expected = network(x.transpose(0, 1)).amax(dim=0)
    bundle = Bundle.read(publish(network, tmp_path, "images", (x, y)).folder)
    assert [node.type for node in bundle.network.spec.nodes] == [
        "Conv2d", "LIF", "MaxPool2d", "Flatten", "Linear", "LI",
    ]  # fmt: skip
    answer, _ = ReferenceEngine(bundle.network).run(DenseInputs(x.transpose(0, 1).contiguous().numpy(), 5))
    np.testing.assert_allclose(answer.readout, expected, atol=1e-3)


def test_a_slope_may_be_a_whole_number_and_a_readout_its_name() -> None:
    torch.manual_seed(0)
    x, y = moves(8)
    losses = []
    for slope, readout in ((5, "mean_membrane"), (5.0, Readout.MEAN_MEMBRANE)):
        torch.manual_seed(0)
        hidden = LIF(8, decay=0.9, slope=slope, recurrent=True)
        network = nn.Sequential(nn.Linear(8, 8), hidden, nn.Linear(8, 2), LI(2, decay=0.5))
        loss = membrane_loss(network(x.transpose(0, 1)), y, readout)
        losses.append([loss, *torch.autograd.grad(loss, [*network.parameters()])])
    assert all(torch.equal(one, other) for one, other in zip(*losses, strict=True))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LIF(8, decay=1.5), "LIF: decay: input should be less than or equal to 1, got 1.5"),
        (lambda: LIF(8, decay=0.5, leakiness=1), "LIF: leakiness: .*not permitted"),
        (lambda: LIF(decay=0.5), r"LIF: its shape is \(\), expected one or more sizes"),
        (lambda: LIF(8, decay=0.5, learn=("tau",)), "LIF: learn holds 'tau', which is no number among its parameters"),
        (lambda: LIF(8, charge="euler"), "LIF: node 'neuron': charge is 'euler', which needs rate.*, but it has none"),
        (lambda: LIF(8, surrogate="nope"), "LIF: surrogate is 'nope', expected sigmoid, fast_sigmoid, arctan, triang"),
        (lambda: Delay(8, longest=0), "Delay: shape is .* and longest 0"),
    ],
)
def test_a_wrong_field_is_one_sentence(make: object, sentence: str) -> None:
    with pytest.raises(InvalidConfig, match=sentence):
        make()  # type: ignore[operator]


def test_a_wrong_shape_names_the_axes() -> None:
    with pytest.raises(InvalidData, match=r"LIF: its input has shape 5×8, expected \(batch, time_steps, 8\)"):
        LIF(8, decay=0.5, batch_first=True)(torch.rand(5, 8))


def test_neurons_have_the_decay_of_snntorchs_tutorials_and_else_what_fit_has() -> None:
    own = CubaALIF(4, decay=0.9, syn_decay=0.5, adapt_decay=0.97, adapt_gain=0.1)
    assert CubaALIF(4).neurons.node == own.neurons.node


def test_what_cannot_be_published_is_named(tmp_path: Path) -> None:
    x, y = moves(8)
    loader = DataLoader(TensorDataset(x, y), 3)
    with pytest.raises(InvalidData, match=r"test: is a DataLoader, expected two arrays, \(samples, labels\); of a Dat"):
        publish(nn.Sequential(nn.Linear(8, 2), LIF(2)), tmp_path, "loader", loader)  # type: ignore[arg-type]
    assert torch.equal(torch.cat(next(zip(*loader, strict=True))), x)
    with pytest.raises(InvalidConfig, match=r"^coding is 'nope', expected direct, "):
        publish(nn.Sequential(nn.Linear(8, 2), LIF(2)), tmp_path, "coding", (x, y), coding="nope")
    with pytest.raises(NotConvertible, match=r"1 \(torch.nn.modules.activation.Tanh\): its class: no rule converts it"):
        publish(nn.Sequential(nn.Linear(8, 2), nn.Tanh(), LIF(2, decay=0.5)), tmp_path, "tanh", (x, y))
    network = nn.Sequential(nn.Linear(4, 2), LIF(2, decay=0.5))
    with pytest.raises(InvalidData, match=r"test: samples have shape 8×4, labels 8 and time_steps is None"):
        publish(network, tmp_path, "direct", (np.zeros((8, 4)), np.zeros(8)), coding="direct")
    assert not list(tmp_path.iterdir())
