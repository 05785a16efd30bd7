"""Bundles: written whole or not at all, and refused with a sentence however they are damaged."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from spikeserve.models.bundle import Bundle, File, close
from spikeserve.models.bundle.repository import PRETRAINED, ModelRepository
from spikeserve.models.coding import Inputs
from spikeserve.models.engines import ENGINES, create
from spikeserve.models.engines.base import RunResult
from spikeserve.models.engines.reference import ReferenceEngine
from spikeserve.models.engines.state import State
from spikeserve.models.errors import BundleNotFound, InvalidBundle, InvalidInput
from spikeserve.models.spec.network import Network
from tests.bundles import contents, publish, rehash, rewrite
from tests.hostile_bundles.files import CORRUPT
from tests.models.test_anytime import calibration
from tests.networks import toy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle on disk."""
    return tmp_path / "toy" / str(publish(tmp_path, toy()))


def test_a_bundle_comes_back_as_it_went(tmp_path: Path, digits_like: Network) -> None:
    publish(tmp_path, digits_like, "digits")
    bundle = ModelRepository(tmp_path).read("digits")
    assert bundle.network.spec == digits_like.spec
    for name, tensor in digits_like.tensors.items():
        np.testing.assert_array_equal(bundle.network.tensors[name], tensor)
    assert bundle.manifest.metrics == {"test_accuracy": 0.5}
    assert bundle.card.startswith("# digits")
    assert File.ONNX_MODEL in bundle.manifest.files


CALIBRATION = calibration(0.5, time_steps=3)


def test_a_bundle_holds_a_calibration_only_where_it_has_one(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    assert "anytime" not in json.loads((tmp_path / "toy/1/bundle.json").read_text())
    repository = ModelRepository(tmp_path)
    repository.publish(replace(contents(toy()), calibration=CALIBRATION))
    assert repository.read("toy", 1).calibration is None
    assert repository.read("toy", 2).calibration == CALIBRATION


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("time_steps", 4, "anytime: time_steps is 4, but the spec has 3"),
        ("threshold", -1, "anytime.threshold: input should be greater than or equal to 0"),
        ("first", 0, "anytime.first: input should be greater than or equal to 1"),
        ("other", 1, "anytime.other: extra inputs are not permitted"),
    ],
)
def test_a_calibration_that_cannot_be_is_a_sentence(tmp_path: Path, field: str, value: float, sentence: str) -> None:
    ModelRepository(tmp_path).publish(replace(contents(toy()), calibration=CALIBRATION))
    rewrite(tmp_path / "toy/1", lambda manifest: manifest["anytime"].update({field: value}))
    with pytest.raises(InvalidBundle, match=sentence):
        ModelRepository(tmp_path).read("toy")


@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_engine_reproduces_the_golden_samples_of_what_ships(engine: str) -> None:
    repository = ModelRepository(PRETRAINED)
    for name in repository.names():
        bundle = repository.read(name)
        bundle.verify(create(engine, bundle.network))


def read_and_verify(root: Path) -> None:
    bundle = ModelRepository(root).read("toy", 1)
    bundle.verify(ReferenceEngine(bundle.network))


@pytest.mark.parametrize("corrupt", CORRUPT, ids=lambda corrupt: corrupt.__name__)
def test_a_damaged_bundle_is_refused_by_the_files_name(corrupt: Callable[[Path], None], tmp_path: Path) -> None:
    home = tmp_path / "repository"  # some link a file of the folder around it
    publish(home, toy())
    corrupt(home / "toy" / "1")
    descriptors = sorted(path.name for path in Path("/dev/fd").iterdir())
    with pytest.raises(InvalidBundle) as refused:
        read_and_verify(home)
    assert str(refused.value).startswith(CORRUPT[corrupt])
    assert sorted(path.name for path in Path("/dev/fd").iterdir()) == descriptors  # each file is closed


def test_a_card_that_is_no_utf_8_is_read_all_the_same(folder: Path) -> None:
    rehash(folder, File.CARD, b"# caf\xe9")
    assert Bundle.read(folder).card == "# caf\N{REPLACEMENT CHARACTER}"


class Watched(ReferenceEngine):
    """An engine that keeps how many samples each run had."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.sizes: list[int] = []

    def run(self, inputs: Inputs, *given: Any, **said: Any) -> tuple[RunResult, State]:
        self.sizes.append(inputs.batch)
        return super().run(inputs, *given, **said)


def test_golden_samples_are_replayed_a_few_at_a_time_however_many_there_are(tmp_path: Path) -> None:
    # The toy's 2 inputs, 2 outputs of a Linear and 2 neurons have 72 bytes a step, 216 in its 3 steps: 310,689 samples
    # fit into 64 MiB. A million of them are three runs of that many, and the rest.
    publish(tmp_path, toy())
    folder = tmp_path / "toy" / "1"
    golden = load_file(folder / File.GOLDEN)
    first = {"inputs": golden["inputs"][:, :1], **{name: golden[name][:1] for name in ("spike_counts", "readout")}}
    repeats = {"inputs": (1, 10**6, 1), "spike_counts": (10**6, 1), "readout": (10**6, 1)}
    many = {name: np.tile(values, repeats[name]) for name, values in first.items()}
    many["spike_counts"][-1] += 1
    rehash(folder, File.GOLDEN, save(many))
    bundle = Bundle.read(folder)
    engine = Watched(bundle.network)
    with pytest.raises(InvalidBundle, match=r"golden\.safetensors: sample 999999 gives spike counts"):
        bundle.verify(engine)
    assert engine.sizes == [310_689, 310_689, 310_689, 67_933]


def test_a_readout_that_strays_is_named_and_one_that_sums_in_another_order_is_not(folder: Path) -> None:
    # The readout is the counts, 0 to 3 here, so that it may stray by 1e-4 to 4e-4: 1e-5 is within that, 1e-3 is not.
    golden = load_file(folder / File.GOLDEN)
    told = golden["readout"].copy()
    for stray, refused in ((1e-5, False), (1e-3, True)):
        golden["readout"] = told + np.float32(stray) * (np.arange(told.size).reshape(told.shape) == 0)
        rehash(folder, File.GOLDEN, save(golden))
        bundle = Bundle.read(folder)
        with pytest.raises(InvalidBundle, match="sample 0 reads out") if refused else nullcontext():
            bundle.verify(ReferenceEngine(bundle.network))


@pytest.mark.parametrize("unit", [2.0**-60, 1.0, 2.0**60])
def test_how_far_values_may_stray_is_a_share_of_the_largest(unit: float) -> None:
    expected = np.array([[4.0, 0.0, np.inf, np.nan]], np.float32)  # of 4 the share is 4e-4
    found = np.array([[4.0, 3.9e-4, np.inf, np.nan]], np.float32)
    assert close(found * np.float32(unit), expected * np.float32(unit)).all()
    assert close(-found, expected).tolist() == [[False, True, False, True]]
    assert not close(np.full(1, 2.0**-60, np.float32), np.zeros(1, np.float32)).any()


def test_versions_count_up_and_the_newest_is_read_by_default(tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    assert [publish(tmp_path, toy()) for _ in range(11)] == list(range(1, 12))
    assert repository.versions("toy") == list(range(1, 12))
    assert repository.read("toy").manifest.version == 11
    assert repository.read("toy", 2).manifest.version == 2
    assert repository.names() == ["toy"]


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    repository = ModelRepository(tmp_path)
    with pytest.raises(BundleNotFound, match="model 'digits' is not in the repository; it holds: toy"):
        repository.read("digits")
    with pytest.raises(BundleNotFound, match="model 'toy' has no version 3; it has: 1"):
        repository.read("toy", 3)
    with pytest.raises(BundleNotFound, match="it holds: none"):
        ModelRepository(tmp_path / "nowhere").read("toy")


@pytest.mark.parametrize("name", ["0", "01", "-1", "1.0", "1000000000", "one", "١", "1\n", " 1"])
def test_a_folder_that_is_no_number_as_versions_have_it_is_none(name: str, tmp_path: Path) -> None:
    publish(tmp_path, toy())
    (tmp_path / "toy" / "1").rename(tmp_path / "toy" / name)
    assert ModelRepository(tmp_path).versions("toy") == []
    assert publish(tmp_path, toy()) == 1


def test_a_name_may_have_64_characters(tmp_path: Path) -> None:
    name = "x" * 64
    assert publish(tmp_path, toy(), name) == 1
    assert ModelRepository(tmp_path).read(name).manifest.name == name


@pytest.mark.parametrize("name", ["..", "../toy", "/etc", "", ".hidden", "a/b", "x" * 65])
def test_a_name_never_leaves_the_repository(name: str, tmp_path: Path) -> None:
    publish(tmp_path, toy())
    repository = ModelRepository(tmp_path / "toy")
    with pytest.raises(BundleNotFound):
        repository.read(name)
    with pytest.raises(InvalidInput, match="is not a model's name"):
        repository.publish(contents(toy(), name))


def test_no_link_in_a_repository_is_followed(tmp_path: Path) -> None:
    publish(tmp_path / "elsewhere", toy())
    publish(tmp_path / "here", toy(), "other")
    (tmp_path / "here" / "toy").symlink_to(tmp_path / "elsewhere" / "toy")
    (tmp_path / "here" / "other" / "2").symlink_to(tmp_path / "elsewhere" / "toy" / "1")
    (tmp_path / "linked").symlink_to(tmp_path / "here")
    for root in (tmp_path / "here", tmp_path / "linked"):  # which the operator named, and so may be a link
        repository = ModelRepository(root)
        assert (repository.names(), repository.versions("other")) == (["other"], [1])
        assert repository.fingerprint("other", 2) == ()
        with pytest.raises(BundleNotFound):
            repository.read("toy")


def test_a_link_named_default_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "named").write_text("toy")
    repository = ModelRepository(tmp_path)
    (tmp_path / "default").symlink_to(tmp_path / "named")
    assert repository.default() is None
    (tmp_path / "named").rename(tmp_path / "default")
    assert repository.default() == "toy"


def test_a_bundle_in_anothers_place_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, toy())
    (tmp_path / "toy" / "1").rename(tmp_path / "toy" / "7")
    with pytest.raises(InvalidBundle, match="says it is 'toy' version 1, but it lies in the folder of 'toy' version 7"):
        ModelRepository(tmp_path).read("toy")


# What to do whenever this process touches a file, which Python tells before it happens. A hook stays for good.
_on_touch: list[Callable[[], None]] = []


def _told(event: str, _: tuple[Any, ...]) -> None:
    if _on_touch and (event == "open" or event.startswith(("os.", "shutil."))):
        look = _on_touch.pop()  # not while it looks itself
        try:
            look()
        finally:
            _on_touch.append(look)


def test_a_version_appears_whole_to_whoever_reads_midway_and_its_folder_is_open_to_all(tmp_path: Path) -> None:
    seen: list[int] = []
    place = tmp_path / "toy" / "1"

    def look() -> None:
        if place.exists():
            Bundle.read(place)
        seen.append(len(ModelRepository(tmp_path).versions("toy")))

    sys.addaudithook(_told)
    _on_touch.append(look)
    try:
        assert publish(tmp_path, toy()) == 1
    finally:
        _on_touch.clear()
    assert len(seen) > 4  # it was looked at before each of its files, and after
    assert set(seen[:5]) == {0}
    assert place.stat().st_mode & 0o777 == 0o755


def test_a_version_taken_meanwhile_is_left_alone_and_the_next_is_used(tmp_path: Path) -> None:
    raced: list[int] = []

    def race(_: int, path: Path) -> None:
        # Somebody else publishes the same version while this one is being written, once.
        if not raced:
            raced.append(publish(tmp_path, toy()))
        path.write_bytes(b"not looked at here")

    assert ModelRepository(tmp_path).publish(replace(contents(toy()), onnx_model=race)) == 2
    assert raced == [1]
    assert (tmp_path / "toy/1/model.onnx").read_bytes() != b"not looked at here"


@pytest.mark.parametrize("kind", ["half a bundle", "file", "link", "link to nowhere"])
def test_a_version_that_holds_no_bundle_is_left_alone_and_the_next_is_used(kind: str, tmp_path: Path) -> None:
    publish(tmp_path, toy())
    taken = tmp_path / "toy" / "2"
    match kind:
        case "half a bundle":
            taken.mkdir()
            (taken / File.WEIGHTS).write_bytes(b"as far as it got")
        case "file":
            taken.touch()
        case _:
            taken.symlink_to(tmp_path / ("toy/1" if kind == "link" else "nowhere"))
    assert publish(tmp_path, toy()) == 3
    assert {entry.name for entry in (tmp_path / "toy").iterdir()} == {"1", "2", "3"}
    assert ModelRepository(tmp_path).versions("toy") == [1, 3]


def test_after_the_highest_version_nothing_is_published_and_a_sentence_says_so(tmp_path: Path) -> None:
    (tmp_path / "toy" / "999999998").mkdir(parents=True)
    assert publish(tmp_path, toy()) == 999_999_999  # the highest of nine digits, and it is read
    assert ModelRepository(tmp_path).versions("toy") == [999_999_999]
    with pytest.raises(InvalidInput, match=r"version: '.*toy' has version 999999999, the highest there is"):
        publish(tmp_path, toy())
    assert len(list((tmp_path / "toy").iterdir())) == 2


@pytest.mark.parametrize("kind", ["file", "link", "loop"])
def test_a_models_folder_that_is_none_is_named(tmp_path: Path, kind: str) -> None:
    home = tmp_path / "toy"
    match kind:
        case "file":
            home.write_text("")
        case "link":
            (tmp_path / "elsewhere").mkdir()
            home.symlink_to(tmp_path / "elsewhere")
        case _:
            home.symlink_to(home)
    with pytest.raises(InvalidInput, match=r"repository: '.*toy' is a link or a file, expected a folder, or nothing"):
        publish(tmp_path, toy())


def test_what_is_not_published_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    def refuse(_: Bundle) -> None:
        raise InvalidBundle("no")

    (tmp_path / "other").mkdir()
    for root in ("new/repository", "other"):
        with pytest.raises(InvalidBundle):
            ModelRepository(tmp_path / root).publish(contents(toy()), check=refuse)
    assert list(tmp_path.rglob("*")) == [tmp_path / "other"]
