"""The gallery: the models that ship, or those of a repository, for the commands `models`, `pull` and `push`.

What a repository says of its models is not trusted: names are a repository's, files are bounded and checked, and words
are shown as one line.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from spikeserve.models.bundle import MANIFEST, Bundle, File
from spikeserve.models.bundle.bundle import read_file
from spikeserve.models.bundle.remote import Remote, Versions, copied, is_url
from spikeserve.models.bundle.repository import PULLED, SHIPPED, ModelRepository, bundle_folder, require_name
from spikeserve.models.errors import BundleNotFound, InvalidBundle, InvalidInput, SpikeserveError, bounded_line
from spikeserve.models.spec import validated

MAX_LISTED = 200  # models of a repository
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n+", re.DOTALL | re.MULTILINE)
LICENSE = re.compile(r"^license: *(.+)$", re.MULTILINE)
FIRST_SENTENCE = re.compile(r"^(?!#)(\S.*?)(?:[.:]\s|\.?$)", re.MULTILINE)
MAX_WORDS = 80  # characters of what a card says of its model


SAID = {
    "models": "Lists the models that ship, or those of a repository.",
    "pull": "Copies the newest version of a model here, its hashes checked; writes over nothing.",
    "push": "Copies a bundle, its hashes checked, to a repository elsewhere as the same version; writes over nothing.",
}


class Folder:
    """A repository on this machine, as `Remote` is one elsewhere: files are read one by one, and copied."""

    def __init__(self, root: Path) -> None:
        self.repository = ModelRepository(root)

    def versions(self) -> Versions:
        """Return the versions of each model, ascending."""
        return {name: self.repository.versions(name) for name in self.repository.names()}

    def read_file(self, name: str, version: int, file: str) -> bytes:
        """Read a file of a version; raises InvalidBundle."""
        return read_file(self.repository.folder(name, version) / file)

    def size(self, name: str, version: int) -> int:
        """Return how many bytes a version's files have."""
        return sum(each.stat().st_size for each in self.repository.folder(name, version).iterdir())

    def copy(self, name: str, version: int, folder: Path) -> None:
        """Copy a version as `Remote.copy` does."""
        copied(lambda file: [self.read_file(name, version, file)], folder / name, version)


class BundleSummary(BaseModel):
    """What is read of a bundle.json for the list."""

    metrics: dict[str, float] = {}


class Row(NamedTuple):
    """A model of the list, as text."""

    name: str
    accuracy: str
    size: str
    operations: str
    license: str
    what: str


HEADER = Row("model", "accuracy", "size", "operations", "licence", "what it does")


def repositories(where: str | None) -> list[Folder | Remote]:
    """Return the repository at a folder or a URL, or else those that ship; raises InvalidInput and RemoteFailed."""
    if where is None:
        return [Folder(each) for each in SHIPPED]
    if not is_url(where) and not Path(where).is_dir():
        raise InvalidInput(f"repository: '{where}' is no folder, expected one or a URL such as s3://bucket/models")
    return [Remote(where) if is_url(where) else Folder(Path(where))]


def rows(where: str | None) -> Iterator[Row]:
    """Yield a row for the newest version of each model; one that cannot be read says why in its row."""
    for repository in repositories(where):
        for name, versions in list(repository.versions().items())[:MAX_LISTED]:
            try:
                yield _row(repository, name, versions[-1])
            except (SpikeserveError, OSError) as error:
                yield Row(name, "", "", "", "", str(error))


def _row(repository: Folder | Remote, name: str, version: int) -> Row:
    content = repository.read_file(name, version, MANIFEST)
    metrics = validated(InvalidBundle, MANIFEST, BundleSummary.model_validate_json, content).metrics
    try:
        card = repository.read_file(name, version, File.CARD).decode(errors="replace")
    except InvalidBundle:
        card = ""
    said = FRONT_MATTER.match(card)
    license_of = LICENSE.search(said[1]) if said else None
    what = FIRST_SENTENCE.search(card[said.end() :] if said else card)
    right = (metrics[each] for each in ("test_accuracy", "test_success_rate") if each in metrics)
    accuracy, operations = next(right, None), metrics.get("synaptic_operations")
    return Row(
        name,
        "" if accuracy is None else f"{accuracy:.1%}",
        f"{repository.size(name, version) / 1000:.0f} kB",
        "" if operations is None else f"{operations:.0f}",
        license_of[1] if license_of else "",
        what[1] if what else "",
    )


def print_models(where: str | None) -> None:
    """Print the list of a repository's models, or of those that ship."""
    for row in (HEADER, *rows(where)):
        cells = Row(*(bounded_line(each)[:MAX_WORDS] for each in row))
        print(
            f"{cells.name:<20}  {cells.accuracy:>8}  {cells.size:>8}  {cells.operations:>10}  "
            f"{cells.license:<14}  {cells.what}".rstrip(),
            flush=True,
        )


def pull(name: str, folder: Path, where: str | None) -> str:
    """Copy a model's newest version into the repository `folder`, and return a sentence that says where it is now.

    `where` is the repository to copy from: a folder or a URL, by default the models that ship. The copy appears whole,
    with its hashes checked, or not at all, and overwrites nothing. Raises BundleNotFound for an unknown name,
    InvalidInput where `folder` has another bundle of that version, what a copy raises, and OSError of this disk.
    """
    require_name(name)
    known = list[str]()
    for repository in repositories(where):
        listed = repository.versions()
        known += listed
        if name in listed:
            version = listed[name][-1]
            there = folder / name / str(version)
            if not there.exists():
                try:
                    repository.copy(name, version, folder)
                except OSError:
                    if not there.exists():  # else another process has copied it meanwhile
                        raise
                else:
                    return f"Copied to {there}"
            if repository.read_file(name, version, MANIFEST) == read_file(there / MANIFEST):
                return f"It is already at {there}"
            raise InvalidInput(f"version: '{there}' is another bundle, expected none there, or another folder")
    raise BundleNotFound(f"model '{name}' is not there; expected one of: {', '.join(known[:MAX_LISTED]) or 'none'}")


def push(bundle: str, url: str) -> str:
    """Copy a bundle to the repository at a URL, and return a sentence that says where it is now; see `Remote.push`."""
    manifest = Bundle.read(folder := bundle_folder(bundle)).manifest
    new = Remote(url).push(manifest.name, manifest.version, folder)
    return f"{'Copied to' if new else 'It is already at'} {url.rstrip('/')}/{manifest.name}/{manifest.version}"


def main(command: str, words: Sequence[str]) -> int:
    """List models, or copy one here or elsewhere, and return the exit status."""
    parser = argparse.ArgumentParser(prog=f"spikeserve {command}", description=SAID[command], allow_abbrev=False)
    if command == "push":
        parser.add_argument("bundle", metavar="BUNDLE", help="its folder, or a model's name: its newest version")
        parser.add_argument("url", metavar="URL", help="the repository, such as s3://bucket/models")
    else:
        parser.add_argument("--repository", help="a folder, or a URL such as s3://bucket/models; else those that ship")
    if command == "pull":
        parser.add_argument("name", metavar="NAME", help="the model, as `spikeserve models` lists it")
        said = f"the repository to copy to; {PULLED} where it is not said"
        parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=PULLED, help=said)
    options = parser.parse_intermixed_args(words)
    try:
        if command == "models":
            print_models(options.repository)
        elif command == "pull":
            print(pull(options.name, options.folder, options.repository))
        else:
            print(push(options.bundle, options.url))
    except SpikeserveError as error:
        print(f"spikeserve: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # who reads the list has had enough
        raise
    except OSError as error:
        where = error.filename or getattr(options, "folder", "standard output")
        print(f"spikeserve: '{where}': {error.strerror}", file=sys.stderr)
        return 1
    return 0


models, pulling, pushing = (partial(main, command) for command in SAID)
