"""The model repository: a folder of `<name>/<version>/`, each a bundle; versions are positive integers.

The file `default`, if there is one, holds the name of the model that is used where a request names none.

The path of the repository may be a symbolic link. Inside it no symbolic link is followed, since one could lead out of
the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from os.path import islink  # False for what cannot be checked, and so not be read either
from pathlib import Path

from spikeserve.models.bundle import DEFAULT_LIMITS, MANIFEST, Bundle, Contents
from spikeserve.models.errors import BundleNotFound, InvalidBundle, InvalidInput
from spikeserve.models.folders import appearing, made
from spikeserve.models.spec.price import LoadLimits

PRETRAINED = Path(__file__).parents[1] / "pretrained"
SHIPPED = (PRETRAINED, PRETRAINED.parent / "gallery")
PULLED = Path("repository")  # where `pull` copies to, and commands look first

DEFAULT = "default"  # the file
MAX_DEFAULT_BYTES = 1024
MAX_VERSION = 999_999_999  # a version has at most nine digits

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")

Fingerprint = tuple[tuple[str, int, int], ...]  # each file's name, size and modification time in nanoseconds


class ModelRepository:
    """Reads and publishes bundles by name and version; an invalid name is never looked up on the disk.

    A bundle that takes more than the `limits` to be loaded is not read.
    """

    def __init__(self, root: Path, limits: LoadLimits = DEFAULT_LIMITS) -> None:
        self.root = root
        self.limits = limits

    def names(self) -> list[str]:
        """Return the models' names, sorted: the folders that have a version or cannot be read."""
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if self._may_have_versions(entry.name))

    def default(self) -> str | None:
        """Return the name in the file `default`, or None if there is no such file or it holds no name.

        Raises OSError if the file cannot be read.
        """
        path = self.root / DEFAULT
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            name = file.read(MAX_DEFAULT_BYTES).decode(errors="replace").strip()
        return name if _NAME.fullmatch(name) else None

    def _may_have_versions(self, name: str) -> bool:
        try:
            return bool(self.versions(name))
        except OSError:
            return True

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, ascending; an empty list for an unknown name.

        A version is a folder with a bundle.json, even one that cannot be read: reading it then raises InvalidBundle.
        Raises OSError if the model's folder cannot be read.
        """
        if not _NAME.fullmatch(name) or (folder := self.home(name)).is_symlink() or not folder.is_dir():
            return []
        return sorted(
            int(entry.name)
            for entry in folder.iterdir()
            if _VERSION.fullmatch(entry.name) and not islink(entry) and _is_there(entry / MANIFEST)  # noqa: PTH114
        )

    def read(self, name: str, version: int | None = None) -> Bundle:
        """Read a version of a model, by default its newest.

        Raises BundleNotFound, and InvalidBundle if the bundle is damaged or has another name or version.
        """
        try:
            versions = self.versions(name)
        except OSError as error:
            raise InvalidBundle(f"the folder of model '{name}' cannot be read: {error.strerror}") from error
        chosen = version if version is not None else max(versions, default=None)
        if chosen is None:
            known = ", ".join(self.names()) or "none"
            raise BundleNotFound(f"model '{name}' is not in the repository; it holds: {known}")
        if chosen not in versions:
            listed = ", ".join(map(str, versions)) or "none"
            raise BundleNotFound(f"model '{name}' has no version {chosen}; it has: {listed}")
        bundle = Bundle.read(self.folder(name, chosen), self.limits)
        if (bundle.manifest.name, bundle.manifest.version) != (name, chosen):
            raise InvalidBundle(
                f"{MANIFEST}: says it is '{bundle.manifest.name}' version {bundle.manifest.version}, "
                f"but it lies in the folder of '{name}' version {chosen}"
            )
        return bundle

    def folder(self, name: str, version: int) -> Path:
        """Return the folder of a version that there is."""
        return self.home(name) / str(version)

    def home(self, name: str) -> Path:
        """Return the folder of a model's versions."""
        return self.root / name

    def place(self, name: str, version: int) -> str:
        """Return where a version lies, as a person reads it."""
        return str(self.root / name / str(version))

    def fingerprint(self, name: str, version: int) -> Fingerprint:
        """Return a value that changes when a version's files change; empty if there are none."""
        try:
            if version not in self.versions(name):
                return ()
            files = [(entry.name, entry.lstat()) for entry in (self.home(name) / str(version)).iterdir()]
        except OSError:  # it is being deleted
            return ()
        return tuple(sorted((each, status.st_size, status.st_mtime_ns) for each, status in files))

    def publish(self, contents: Contents, check: Callable[[Bundle], None] | None = None) -> int:
        """Write a bundle as the model's next version and return that version.

        The bundle appears whole or not at all: it is written to a temporary folder, which is then renamed. Its version
        is higher than all that is there by the name of a version, valid or not. `check` is given the bundle as it was
        written, right before the rename: what it raises is raised here, and nothing is published. Raises InvalidInput
        for an invalid name, for a model's folder that is a link or a file, and after version MAX_VERSION.
        """
        require_name(contents.name)
        home = self.root / contents.name
        if islink(home) or (home.exists() and not home.is_dir()):  # noqa: PTH114
            raise InvalidInput(f"repository: '{home}' is a link or a file, expected a folder, or nothing yet")
        with made(home):
            while True:
                taken = (int(each.name) for each in home.iterdir() if _VERSION.fullmatch(each.name))
                version = next_version(home, taken)
                try:
                    with appearing(home / str(version)) as incoming:
                        contents.write(incoming, version)
                        if check is not None:
                            check(Bundle.read(incoming, self.limits))
                except OSError:
                    if not (home / str(version)).exists():
                        raise
                    continue  # another process has just published that version: take the next
                return version


def next_version(home: Path | str, versions: Iterable[int]) -> int:
    """Return a version above all of a model's; raises InvalidInput, with the model's place, where there is none."""
    version = max(versions, default=0) + 1
    if version > MAX_VERSION:
        raise InvalidInput(
            f"version: '{home}' has version {MAX_VERSION}, the highest there is, expected lower ones only: remove it, "
            "or publish by another name"
        )
    return version


def _is_there(path: Path) -> bool:
    """Return whether a path exists, or might exist because it cannot be checked."""
    try:
        path.lstat()
    except OSError as error:
        return not isinstance(error, FileNotFoundError | NotADirectoryError)
    return True


def require_name(name: str) -> None:
    """Raise InvalidInput for an invalid model name: it must work as a folder and in a route."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"name: '{name}' is not a model's name, expected a letter and then at most 63 letters, digits, '-' or '_'"
        )


class WithGallery(ModelRepository):
    """A repository beside which the models that ship are found by their names, and not listed."""

    def home(self, name: str) -> Path:
        """Return the folder of a model's versions."""
        own = super().home(name)
        return own if own.exists() else next((each / name for each in SHIPPED if (each / name).exists()), own)


def bundle_folder(where: str) -> Path:
    """Return a bundle's folder: that at a path, or the newest version of a model at a path, pulled, or that ships.

    Raises BundleNotFound.
    """
    path = Path(where)
    if (path / MANIFEST).is_file():
        return path
    for folder, name in ((path.parent, path.name), *((each, where) for each in (PULLED, *SHIPPED))):
        repository = ModelRepository(folder)
        if versions := repository.versions(name):
            return repository.folder(name, versions[-1])
    shipped = ", ".join(shipped_names())
    raise BundleNotFound(f"bundle: '{where}' is no bundle's folder and no model of ./{PULLED}, or of these: {shipped}")


def shipped_names() -> list[str]:
    """Return the names of the models that ship."""
    return [name for each in SHIPPED for name in ModelRepository(each).names()]
