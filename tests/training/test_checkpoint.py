"""Weights from the files that training loops write: found, renamed or refused by name, and never run."""

import argparse
import functools
import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sinabs.layers import IAF
from torch import Tensor, nn
from typer.testing import CliRunner

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.plugins.frameworks.entry import Weights
from spikeserve.training.__main__ import app
from spikeserve.training.errors import InvalidEntry


def network() -> nn.Sequential:
    return nn.Sequential(OrderedDict(fc1=nn.Linear(3, 2), fc2=nn.Linear(2, 2)))


def trained(value: float = 0.5) -> dict[str, Tensor]:
    return {key: torch.full_like(tensor, value) for key, tensor in network().state_dict().items()}


def loaded(path: Path, **choices: Any) -> set[float]:
    """Return the values of a network's weights after a file was loaded into it."""
    net = network()
    Weights(path, **choices).load_into(net)
    return {value for tensor in net.state_dict().values() for value in tensor.flatten().tolist()}


def saved(folder: Path, found: Any) -> Path:
    torch.save(found, folder / "w.pt")
    return folder / "w.pt"


def prefixed(prefix: str, value: float = 0.5) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in trained(value).items()}


@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "net", "model"])
def test_the_only_state_dict_of_a_file_is_found(tmp_path: Path, key: str) -> None:
    optimiser = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    path = saved(tmp_path, {"epoch": 3, key: trained(), "optimizer_state_dict": optimiser, "acc": np.float64(0.9)})
    assert loaded(path) == {0.5}


def test_a_state_dict_among_several_is_chosen_by_a_map_or_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, {"net": trained(1.0), "net_ema": trained(2.0)})
    told = (
        r"holds 2 .*: 'net' \(4 tensors\), 'net_ema' \(4 tensors\); "
        r"say which by --rename '\{\"net\.\*\": \"\*\", \"\*\": null\}'"
    )
    with pytest.raises(InvalidEntry, match=told):
        loaded(path)
    assert loaded(path, rename='{"net_ema.*": "*", "*": null}') == {2.0}
    with pytest.raises(InvalidEntry, match=r"'nets\.\*' fits no key of the file; the keys are 'net\.fc1\.weight', "):
        loaded(path, rename='{"nets.*": "*", "*": null}')


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "module.net."])
def test_a_prefix_is_found_where_it_gives_all_keys(tmp_path: Path, prefix: str) -> None:
    assert loaded(saved(tmp_path, prefixed(prefix) | {"criterion.weight": torch.ones(2)})) == {0.5}
    save_file(prefixed(prefix, 0.25), tmp_path / "w.safetensors")
    assert loaded(tmp_path / "w.safetensors") == {0.25}


def test_a_prefix_under_which_keys_are_missing_is_none(tmp_path: Path) -> None:
    assert loaded(saved(tmp_path, prefixed("model.") | {"ema.fc1.weight": torch.ones(2, 3)})) == {0.5}


def test_a_prefix_among_several_is_named_or_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state_dict": prefixed("model.", 1.0) | prefixed("ema.", 2.0)})
    with pytest.raises(InvalidEntry, match=r"under each of 'model\.', 'ema\.'; say which by --rename '\{\"model\."):
        loaded(path)
    assert loaded(path, rename='{"ema.*": "*", "*": null}') == {2.0}


def test_keys_are_renamed_by_a_map_before_a_prefix_is_found(tmp_path: Path) -> None:
    old = {key.replace("fc1", "layer.0").replace("fc2.", "head_"): tensor for key, tensor in prefixed("m.").items()}
    path = saved(tmp_path, old | {"m.layer.1.running": torch.ones(1)})
    rules = {"m.layer.0.*": "m.fc1.*", "*head_bias": "*fc2.bias", "m.head_weight": "m.fc2.weight", "*running": None}
    (tmp_path / "map.json").write_text(json.dumps(rules))
    assert loaded(path, rename=str(tmp_path / "map.json")) == loaded(path, rename=json.dumps(rules)) == {0.5}


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list, expected an object of old and new keys"),
        ('{"fc1.*": "x"}', r"'fc1\.\*' becomes \"x\", expected a key with as many \* as there"),
        ('{"fc1.weight": 3}', "becomes 3, expected a key"),
        ('{"fc3.bias": "x"}', r"'fc3\.bias' fits no key of the file; the keys are 'fc1\.weight', "),
        ('{"fc1.bias": "fc2.bias"}', r"two keys of the file become 'fc2\.bias', the second of them 'fc2\.bias'"),
    ],
)
def test_a_map_that_does_not_say_what_it_should_is_refused(tmp_path: Path, rules: str, sentence: str) -> None:
    (tmp_path / "map.json").write_text(rules)
    with pytest.raises(InvalidEntry, match=sentence):
        loaded(saved(tmp_path, trained()), rename=str(tmp_path / "map.json"))


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    found = trained() | {"fc_1.weight": torch.ones(2, 3), "fc2.weight": torch.ones(2, 5)}
    del found["fc1.weight"]
    told = (
        r"state-dict: '\S+w\.pt' does not fit the network: .*Missing key.*: \"fc1\.weight\"\. Unexpected key.*: "
        r"\"fc_1\.weight\"\. size mismatch for fc2\.weight: .*\. A map of keys \(--rename\) can change names"
    )
    with pytest.raises(InvalidEntry, match=told):
        loaded(saved(tmp_path, found))


def test_membranes_that_sinabs_saved_with_the_weights_are_left_out(tmp_path: Path) -> None:
    ran, fresh = (nn.Sequential(nn.Linear(3, 2), IAF()) for _ in range(2))
    ran(torch.ones(4, 5, 3))
    assert ran.state_dict()["1.v_mem"].shape == (4, 2)
    Weights(saved(tmp_path, ran.state_dict())).load_into(fresh)
    assert torch.equal(fresh.state_dict()["0.weight"], ran.state_dict()["0.weight"])
    assert fresh.state_dict()["1.v_mem"].shape == (0,)


@pytest.mark.parametrize("found", [{}, {"epoch": 3}, {"log": {"loss": [0.5]}}])
def test_a_file_without_tensors_says_what_it_holds(tmp_path: Path, found: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidEntry, match=r"holds no tensors by name, but (nothing|'epoch' .int.|'log' .a dictionary wi)"
    ):
        loaded(saved(tmp_path, found))


def test_import_and_verify_take_a_checkpoint_and_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("snntorch", reason="snntorch is not installed: ./scripts/install peers")
    (tmp_path / "kept_net.py").write_text(
        "import snntorch\nfrom torch import nn\n\n"
        "def factory():\n    return nn.Sequential(nn.Linear(3, 2, bias=False), snntorch.Leaky(0.5, init_hidden=True))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    own = __import__("kept_net").factory().state_dict()
    own["0.weight"] = torch.tensor([[1.0, 0.5, 0.25], [0.5, 0.25, 1.0]])
    found = {f"model.{key}": tensor for key, tensor in own.items()}
    found["model.fc.weight"] = found.pop("model.0.weight")
    saved(tmp_path, {"best": found, "last": dict(found)})
    keys = ("--state-dict", "w.pt", "--rename", '{"best.model.fc.*": "0.*", "best.model.*": "*", "*": null}')
    place = ("--input-shape", "3", "--time-steps", "8", "--repository", "r", "--name", "m")
    outcome = CliRunner().invoke(app, ["import", "snntorch", "kept_net:factory", *place, *keys], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    weights = ModelRepository(tmp_path / "r").read("m").network.tensors["linear_0.weight"]
    assert weights.tolist() == own["0.weight"].tolist()
    against = ["verify", "r/m/1", "--against", "snntorch:kept_net:factory"]
    outcome = CliRunner().invoke(app, [*against, *keys], catch_exceptions=False)
    assert (outcome.exit_code, "0 of 256 neuron-steps differ" in outcome.output) == (0, True)
    with pytest.raises(InvalidEntry, match=r"rename: it is 'map\.json', but there is no --state-dict whose keys it is"):
        CliRunner().invoke(app, [*against, "--rename", "map.json"], catch_exceptions=False)


RAN: list[str] = []  # what code of a file has run


class Own:
    """A class of the author's that a checkpoint holds; reading it the usual way runs code."""

    def __init__(self) -> None:
        self.kept = {"width": 3}

    def __setstate__(self, state: object) -> None:
        RAN.append("setstate")


def ran() -> None:
    RAN.append("reduce")


class Calling:
    def __reduce__(self) -> tuple[Any, ...]:
        return ran, ()


def test_a_lightning_checkpoint_is_read_whatever_classes_stand_in_its_hyper_parameters(tmp_path: Path) -> None:
    from lightning_fabric.utilities.data import AttributeDict  # here, since it takes seconds

    checkpoint = {
        "epoch": 3,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": prefixed("model.") | {"criterion.weight": torch.ones(3)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5), "dirpath": "x"}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        "lr_schedulers": [],
        "hparams_name": "hparams",
        "hyper_parameters": AttributeDict(
            args=argparse.Namespace(lr=0.1), folder=Path("data"), accuracy=np.float32(0.5), criterion=nn.Tanh(),
            made=functools.partial(nn.Linear, 3), own=Own(), calling=Calling(), table=np.arange(3),
        ),
    }  # fmt: skip
    RAN.clear()
    assert loaded(saved(tmp_path, checkpoint)) == {0.5}
    assert RAN == []
    torch.load(tmp_path / "w.pt", weights_only=False)  # the same file, read as any pickle, does run
    assert sorted(RAN) == ["reduce", "setstate"]


def test_a_whole_module_and_what_is_no_file_of_weights_are_refused_with_what_to_save(tmp_path: Path) -> None:
    with pytest.raises(InvalidEntry, match=r"tensors alone: it holds .*Sequential'.*save the network's state_dict\(\)"):
        loaded(saved(tmp_path, network()))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InvalidEntry, match="cannot be read as tensors alone"):
        loaded(tmp_path / "text.pt")
    torch.save({"net": trained(), "acc": np.float64(0.5)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InvalidEntry, match=r"tensors alone: it holds 'numpy\S+scalar'; save the network's state_dict"):
        loaded(tmp_path / "old.pt")
    with pytest.raises(InvalidEntry, match="holds a list, expected a dictionary of tensors"):
        loaded(saved(tmp_path, [torch.ones(2)]))


def test_a_damaged_file_is_refused_in_a_sentence_wherever_it_is_damaged(tmp_path: Path) -> None:
    whole = saved(tmp_path, {"state_dict": trained(), "own": Own()}).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged.pt").write_bytes(damaged)
        try:
            loaded(tmp_path / "damaged.pt")
        except InvalidEntry as refused:
            assert str(refused).startswith("state-dict: ")  # noqa: PT017  (some bytes change nothing that is read)
