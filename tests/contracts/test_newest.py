"""The newest of versions 9 and 10, which as text would be 9, wherever one is chosen where none is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spikeserve.models.bundle.copies import RemoteRepository, repository_at
from spikeserve.models.bundle.repository import bundle_folder
from spikeserve.plugins.gallery.commands import pull, rows
from spikeserve.service.catalog.catalog import Version
from spikeserve.service.http.gate import Gate
from tests.bundles import contents
from tests.inside import Inside
from tests.networks import toy
from tests.serving import serving


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A repository with versions 10 and 9 of one model, whose test accuracies are 10 % and 9 %."""
    for version in (10, 9):
        (folder := tmp_path / f"there/toy/{version}").mkdir(parents=True)
        replace(contents(toy()), metrics={"test_accuracy": version / 100}).write(folder, version)
    return tmp_path / "there"


def served(there: Path, _: Path) -> object:
    with serving(there, versions="all") as client:
        described = client.get("/models/toy").json()
        assert [each["version"] for each in described["versions"]] == [9, 10]
        paths = client.get("/openapi.json").json()["paths"]
        assert paths["/models/{name}/versions/{version}"]["get"]["parameters"][1]["example"] == "10"
        admitted = Gate(Inside(client.app).services).admit(b"/predict", [], 20)  # of a small request
        assert admitted is not None
        assert admitted[0].model.version == 10
        assert client.post("/predict", json={"inputs": [[0, 1]]}).json()["version"] == 10
        return described["version"]


def latest(there: Path, _: Path) -> object:
    with serving(there, engine="reference") as client:
        return client.get("/models/toy").json()["versions"][0]["version"]


def adopted(there: Path, _: Path) -> object:
    with serving(there, engine="reference", versions="10") as client:
        inside = Inside(client.app)
        inside.catalog.add("toy", {9: Version("toy", 9)})
        assert [*inside.catalog.models["toy"]] == [9, 10]
        inside.loader.adopt({"toy": (10, 9)}, ())
        return [*inside.catalog.models["toy"]][-1]


def mended(there: Path, copies: Path) -> object:
    repository = RemoteRepository(there.as_uri(), cache=copies)
    (repository.folder("toy", 10) / "card.md").write_text("damaged")
    return repository.read("toy").manifest.version


@pytest.mark.parametrize(
    "newest",
    [
        lambda there, _: repository_at(there).read("toy").manifest.version,
        lambda there, _: bundle_folder(f"{there}/toy").name,
        lambda there, _: next(rows(str(there))).accuracy.removesuffix(".0%"),
        lambda there, _: next(rows(there.as_uri())).accuracy.removesuffix(".0%"),
        lambda there, target: pull("toy", target, str(there)),
        lambda there, target: pull("toy", target, there.as_uri()),
        served,
        latest,
        adopted,
        mended,
    ],
)
def test_version_10_is_newer_than_9(newest: Callable[[Path, Path], object], there: Path, tmp_path: Path) -> None:
    assert str(newest(there, tmp_path / "target")).rpartition("/")[2] == "10"
