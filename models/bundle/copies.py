"""The copies on this machine of a repository elsewhere, in a folder that processes change one at a time.

A bundle never changes, so a version that is here is looked at again only where it cannot be read: then a damaged copy
is made again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikeserve.models.bundle import DEFAULT_LIMITS, MANIFEST, Bundle, Contents
from spikeserve.models.bundle.bundle import read_checked
from spikeserve.models.bundle.remote import Remote, RemoteFailed, is_url, listed
from spikeserve.models.bundle.repository import ModelRepository, require_name
from spikeserve.models.errors import InvalidBundle
from spikeserve.models.folders import INCOMING
from spikeserve.models.spec.price import LoadLimits

MAX_TRIES = 100  # of a publisher, to take a version before others do
CACHE = "SPIKESERVE_REPOSITORY_CACHE"  # the variable that names the folder of all copies


def cache_of(url: str, cache: Path | None = None) -> Path:
    """Return the folder of a URL's copies, in `cache` or in the one that the environment says."""
    chosen = cache or Path(os.environ.get(CACHE) or Path.home() / ".cache/spikeserve")
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url)[:40].strip("-")
    return chosen / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


class RemoteRepository(ModelRepository):
    """A model repository at a URL: versions are copied to this machine before they are read, and published there."""

    def __init__(self, url: str, limits: LoadLimits = DEFAULT_LIMITS, cache: Path | None = None) -> None:
        super().__init__(cache_of(url, cache), limits)
        self.remote = Remote(url)

    def names(self) -> list[str]:
        """Return the models' names, sorted."""
        return list(self.remote.versions())

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, ascending; an empty list for an unknown name."""
        return self.remote.versions().get(name, [])

    def folder(self, name: str, version: int) -> Path:
        """Return the folder of a version's copy, which is made where there is none."""
        folder = super().folder(name, version)
        if not folder.exists():
            with locked(self.root):
                if not folder.exists():  # another process has copied it meanwhile
                    self.remote.copy(name, version, self.root)
        return folder

    def read(self, name: str, version: int | None = None) -> Bundle:
        """Read a version as a repository on disk does; a copy that is damaged is made again, once."""
        try:
            return super().read(name, version)
        except InvalidBundle:
            with locked(self.root):
                if not drop_damaged(self.root, name, version or max(self.versions(name))):
                    raise
        return super().read(name, version)

    def place(self, name: str, version: int) -> str:
        """Return the URL of a version."""
        return f"{self.remote.url}/{name}/{version}"

    def publish(self, contents: Contents, check: Callable[[Bundle], None] | None = None) -> int:
        """Write a bundle as the model's next version there, as a repository on disk does.

        Two publishers do not write one version, where the storage can make a file only if there is none: S3 and
        Google's can.
        """
        require_name(contents.name)
        for _ in range(MAX_TRIES):
            version = self.remote.next_version(contents.name)
            with tempfile.TemporaryDirectory() as written:
                contents.write(Path(written), version)
                if check is not None:
                    check(Bundle.read(Path(written), self.limits))
                if self.remote.put(contents.name, version, Path(written)):
                    return version
        raise RemoteFailed(
            f"repository: {self.remote.url}/{contents.name} has had its next version taken by others {MAX_TRIES} "
            "times, expected fewer publishers at once"
        )


def repository_at(where: str | Path, limits: LoadLimits = DEFAULT_LIMITS) -> ModelRepository:
    """Return the repository at a folder or a URL."""
    return RemoteRepository(str(where), limits) if is_url(str(where)) else ModelRepository(Path(where), limits)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder of copies, so that one process changes it at a time.

    What processes left that were killed while they held it is removed: half of a copy may be gigabytes. Raises
    RemoteFailed where the system has no such lock, or the folder cannot be written, also by the block.
    """
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise RemoteFailed(
            "repository: is a URL, whose copies need a lock that this system lacks, expected a folder here, or a "
            "server on Linux or macOS"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for left in folder.glob(f"*/{INCOMING}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield
    except OSError as error:
        raise RemoteFailed(f"{CACHE}: {folder} cannot be written: {error.strerror}") from error


def drop_damaged(folder: Path, name: str, version: int) -> bool:
    """Remove a copy whose files are no longer what bundle.json says, and return whether that was so; see `remove`."""
    copy = folder / name / str(version)
    if not copy.exists():
        return False
    try:
        for file, digest in listed(copy / MANIFEST).items():
            read_checked(copy / file, digest)
    except (InvalidBundle, OSError):
        remove(folder, name, version)
        return True
    return False


def remove(folder: Path, name: str, version: int) -> None:
    """Remove a version's copy, whole or not at all, and with the last one the model's folder.

    The caller holds the folder's lock.
    """
    outgoing = Path(tempfile.mkdtemp(prefix=INCOMING, dir=folder / name))
    (folder / name / str(version)).rename(outgoing / str(version))
    shutil.rmtree(outgoing)
    with suppress(OSError):  # it holds other versions
        (folder / name).rmdir()
