"""Weights from the files that training loops write: found, renamed or refused by name, and never run."""

import argparse
import functools
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sinabs.layers import IAF
from torch import Tensor, nn

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.plugins.frameworks.entry import Weights
from spikeserve.training.errors import InvalidEntry
from tests.training.command_line import training_here


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


OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
AVERAGED = {"net": trained(1.0), "net_ema": trained(2.0)}
AVERAGE_BESIDE = {"state_dict": prefixed("model.", 1.0) | prefixed("ema.", 2.0)}
OLD_NAMES = {key.replace("fc1", "layer.0").replace("fc2.", "head_"): value for key, value in prefixed("m.").items()}
NEW_NAMES = {"m.layer.0.*": "m.fc1.*", "*head_bias": "*fc2.bias", "m.head_weight": "m.fc2.weight", "*running": None}
OTHERS = {key: value for key, value in trained().items() if key != "fc1.weight"}


@pytest.mark.parametrize(
    ("content", "rename", "outcome"),
    [
        # The only state dict of a file, by any name.
        *(
            ({"epoch": 3, key: trained(), "optimizer_state_dict": OPTIMISER, "acc": np.float64(0.9)}, None, 0.5)
            for key in ("model_state_dict", "state_dict", "net", "model")
        ),
        # One among several is chosen by a map, or asked for.
        (
            AVERAGED, None,
            r"holds 2 .*: 'net' \(4 tensors\), 'net_ema' \(4 tensors\); "
            r"say which by --rename '\{\"net\.\*\": \"\*\", \"\*\": null\}'",
        ),
        (AVERAGED, '{"net_ema.*": "*", "*": null}', 2.0),
        (AVERAGED, '{"nets.*": "*", "*": null}',
         r"'nets\.\*' fits no key of the file; the keys are 'net\.fc1\.weight', "),
        # A prefix is found where it gives all keys, and among several asked for.
        *(
            (prefixed(prefix) | {"criterion.weight": torch.ones(2)}, None, 0.5)
            for prefix in ("model.", "module.", "_orig_mod.", "module.net.")
        ),
        (prefixed("model.") | {"ema.fc1.weight": torch.ones(2, 3)}, None, 0.5),
        (AVERAGE_BESIDE, None, r"under each of 'model\.', 'ema\.'; say which by --rename '\{\"model\."),
        (AVERAGE_BESIDE, '{"ema.*": "*", "*": null}', 2.0),
        # Keys are renamed by a map before a prefix is found.
        (OLD_NAMES | {"m.layer.1.running": torch.ones(1)}, json.dumps(NEW_NAMES), 0.5),
        (trained(), "{", "is not JSON"),
        (trained(), "[]", "holds a list, expected an object of old and new keys"),
        (trained(), '{"fc1.*": "x"}', r"'fc1\.\*' becomes \"x\", expected a key with as many \* as there"),
        (trained(), '{"fc1.weight": 3}', "becomes 3, expected a key"),
        (trained(), '{"fc3.bias": "x"}', r"'fc3\.bias' fits no key of the file; the keys are 'fc1\.weight', "),
        (trained(), '{"fc1.bias": "fc2.bias"}', r"two keys of the file become 'fc2\.bias', the second of them 'fc2\.b"),
        # Keys that do not fit are named.
        (
            OTHERS | {"fc_1.weight": torch.ones(2, 3), "fc2.weight": torch.ones(2, 5)}, None,
            r"state-dict: '\S+w\.pt' does not fit the network: .*Missing key.*: \"fc1\.weight\"\. Unexpected key.*: "
            r"\"fc_1\.weight\"\. size mismatch for fc2\.weight: .*\. A map of keys \(--rename\) can change names",
        ),
        # A file without tensors says what it holds.
        ({}, None, "holds no tensors by name, but nothing"),
        ({"log": {"loss": [0.5]}}, None, "holds no tensors by name, but 'log' .a dictionary wi"),
        ([torch.ones(2)], None, "holds a list, expected a dictionary of tensors"),
    ],
)  # fmt: skip
def test_weights_are_found_renamed_or_refused_by_name(
    content: Any, rename: str | None, outcome: float | str, tmp_path: Path
) -> None:
    path, maps = saved(tmp_path, content), list[str | None]([rename])
    if rename:
        (tmp_path / "map.json").write_text(rename)
        maps = [str(tmp_path / "map.json"), *[rename] * (len(rename) > 2)]  # in a file, and as it stands
    for each in maps:
        if isinstance(outcome, float):
            assert loaded(path, rename=each) == {outcome}
        else:
            with pytest.raises(InvalidEntry, match=outcome):
                loaded(path, rename=each)


def test_membranes_that_sinabs_saved_with_the_weights_are_left_out(tmp_path: Path) -> None:
    ran, fresh = (nn.Sequential(nn.Linear(3, 2), IAF()) for _ in range(2))
    ran(torch.ones(4, 5, 3))
    assert ran.state_dict()["1.v_mem"].shape == (4, 2)
    Weights(saved(tmp_path, ran.state_dict())).load_into(fresh)
    assert torch.equal(fresh.state_dict()["0.weight"], ran.state_dict()["0.weight"])
    assert fresh.state_dict()["1.v_mem"].shape == (0,)


def test_import_and_verify_take_a_checkpoint_and_its_keys(tmp_path: Path) -> None:
    (tmp_path / "own_net.py").write_text("from torch import nn\n\ndef factory():\n    return nn.Linear(3, 2)\n")
    own = {"best": {"model.fc.weight": torch.ones(2, 3), "model.fc.bias": torch.ones(2)}, "last": trained()}
    saved(tmp_path, own)
    keys = ("--state-dict", "w.pt", "--rename", '{"best.model.fc.*": "*", "*": null}')
    place = ("--input-shape", "3", "--time-steps", "8", "--repository", "r", "--name", "m")
    against = ("verify", "r/m/1", "--against", "torch:own_net:factory")
    done = training_here("import", "torch", "own_net:factory", *place, *keys, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all((values == 1).all() for values in ModelRepository(tmp_path / "r").read("m").network.tensors.values())
    assert (
        training_here(*against, *keys, cwd=tmp_path).returncode,
        training_here(*against, cwd=tmp_path).returncode,
    ) == (0, 1)


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
