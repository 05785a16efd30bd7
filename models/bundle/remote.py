"""A model repository elsewhere, such as a bucket: its bundles are copied here and verified, and new ones published.

It has the layout of one on disk, `<name>/<version>/`, below a URL that fsspec opens: `s3://bucket/models` (s3fs),
`gs://bucket/models` (gcsfs), `hf://owner/repository/models` (huggingface_hub), and others. Keys are found as those
packages find them, so that no URL has to hold one.

What comes from there is not trusted more than any bundle: no file is copied that bundle.json does not list, and none
larger than a bundle's may be. A version appears on this machine whole, with the hashes that its bundle.json says, or
not at all. A bundle never changes, so a version that is here is not looked at again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import StringConstraints, TypeAdapter, ValidationError

from models.bundle import DEFAULT_LIMITS, MANIFEST
from models.bundle.bundle import MAX_BYTES, File, Sha256
from models.bundle.repository import DEFAULT, MAX_DEFAULT_BYTES, ModelRepository, flush, require_name
from models.errors import InvalidBundle, InvalidInput, SpikeserveError
from models.folders import made
from models.spec import describe_first_error
from models.spec.price import LoadLimits

CACHE = "SPIKESERVE_REPOSITORY_CACHE"  # the variable that names the folder of all copies
CLAIM = ".claim"  # the file that a publisher makes first: its version is taken
CHUNK = 2**22  # bytes that are read at once

Url = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*://.+")]
Versions: TypeAlias = dict[str, list[int]]

# So that a server that does not answer is given up in seconds, and not in minutes.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}},
}

_VERSION_FILE = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]{0,63})/(?P<version>[1-9][0-9]{0,8})/(?P<file>[^/]+)")
_FILES = TypeAdapter(dict[File, Sha256])


class RemoteFailed(SpikeserveError):
    """A repository elsewhere that cannot be read or written; the message names its URL."""


def is_url(where: str) -> bool:
    """Return whether a repository is elsewhere."""
    return "://" in where


def cache_of(url: str, cache: Path | None = None) -> Path:
    """Return the folder of a URL's copies, in `cache` or in the one that the environment says."""
    chosen = cache or Path(os.environ.get(CACHE) or Path.home() / ".cache/spikeserve")
    readable = re.sub(r"[^A-Za-z0-9]+", "-", url)[:40].strip("-")
    return chosen / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


class Remote:
    """The repository at a URL. Raises RemoteFailed where it cannot be used, InvalidInput for a URL that none opens."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # it logs tracebacks of what it raises as well
        try:
            from fsspec.core import url_to_fs  # here, since only a repository elsewhere needs it
        except ImportError as error:
            raise InvalidInput(
                f"repository: '{url}' needs fsspec, expected the extra `remote`: pip install 'spikeserve[remote]'"
            ) from error
        try:
            with self._failing(ImportError, ValueError):
                self.files, root = url_to_fs(self.url, **OPTIONS.get(url.partition("://")[0], {}))
        except ImportError as error:
            raise InvalidInput(
                f"repository: '{url}' needs a package: {error}; the extra `remote` has those of s3 and gs, "
                "`hub` that of hf: pip install 'spikeserve[remote,hub]'"
            ) from error
        except ValueError as error:
            raise InvalidInput(f"repository: '{url}' is no URL that fsspec opens: {error}") from error
        self.root = str(root).rstrip("/")

    def versions(self) -> Versions:
        """Return the versions of each model, ascending: the folders that hold a bundle.json."""
        return {name: sorted(some) for name, some in sorted(self._listed(MANIFEST).items())}

    def default(self) -> str | None:
        """Return what the file `default` holds, None where there is none."""
        with self._failing():
            path = f"{self.root}/{DEFAULT}"
            return str(self.files.cat_file(path, 0, MAX_DEFAULT_BYTES).decode()) if self.files.exists(path) else None

    def copy(self, name: str, version: int, folder: Path) -> None:
        """Copy a version into `folder`/name/version, whole or not at all.

        Raises InvalidBundle where a file is not what bundle.json says, RemoteFailed, and OSError of this disk.
        """
        home, source = folder / name, f"{self.root}/{name}/{version}"
        with made(home):
            incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=home))
            try:
                self._fetch(source, MANIFEST, incoming)
                for file, expected in listed(incoming / MANIFEST).items():
                    found = self._fetch(source, file, incoming)
                    if found != expected:
                        raise InvalidBundle(
                            f"{file}: its sha256 is {found[:12]}…, but {MANIFEST} says {expected[:12]}…"
                        )
                incoming.chmod(0o755)
                flush(incoming)
                incoming.rename(home / str(version))
            finally:
                shutil.rmtree(incoming, ignore_errors=True)

    def publish(self, name: str, folder_of: Callable[[int], Path]) -> int:
        """Write a bundle as the model's next version, and return that version.

        `folder_of` is given the version and returns the folder of its files. Readers see the bundle once bundle.json is
        there, which is written last. Two publishers do not write one version, where the storage can make a file only if
        there is none: S3 and Google's can.
        """
        while True:
            taken = [version for some in (CLAIM, MANIFEST) for version in self._listed(some).get(name, ())]
            version = max(taken, default=0) + 1
            if self._claim(name, version):
                break
        try:
            folder = folder_of(version)
        except BaseException:
            self._release(name, version)
            raise
        self._put(name, version, folder)
        return version

    def push(self, name: str, version: int, folder: Path) -> bool:
        """Write a bundle that has been published here, by its own version; return False where it is there already.

        Raises InvalidInput where another bundle has that version.
        """
        if version in self.versions().get(name, ()):
            with self._failing():
                there = self.files.cat_file(f"{self.root}/{name}/{version}/{MANIFEST}")
            if there == (folder / MANIFEST).read_bytes():
                return False
            raise InvalidInput(
                f"version: {self.url} has another bundle as '{name}' version {version}, expected a new version: "
                "publish it again"
            )
        if not self._claim(name, version):
            raise InvalidInput(
                f"version: '{name}' version {version} at {self.url} is being written by somebody, or was left behind: "
                f"expected another version, or remove {name}/{version}/ there"
            )
        self._put(name, version, folder)
        return True

    def _claim(self, name: str, version: int) -> bool:
        with self._failing():
            try:
                self.files.pipe_file(f"{self.root}/{name}/{version}/{CLAIM}", b"", mode="create")
            except FileExistsError:
                return False
        return True

    def _put(self, name: str, version: int, folder: Path) -> None:
        target = f"{self.root}/{name}/{version}"
        with self._failing():
            for file in [*listed(folder / MANIFEST), MANIFEST]:
                self.files.put_file(str(folder / file), f"{target}/{file}")
        self._release(name, version)

    def _release(self, name: str, version: int) -> None:
        with self._failing():
            self.files.rm_file(f"{self.root}/{name}/{version}/{CLAIM}")

    def _listed(self, file: str) -> dict[str, set[int]]:
        """Return the versions of each model that hold a file."""
        found: dict[str, set[int]] = {}
        with self._failing():
            self.files.invalidate_cache()
            for path in self.files.find(self.root):
                place = _VERSION_FILE.fullmatch(str(path).removeprefix(self.root).lstrip("/"))
                if place is not None and place["file"] == file:
                    found.setdefault(place["name"], set()).add(int(place["version"]))
        return found

    def _fetch(self, source: str, file: str, folder: Path) -> str:
        """Copy a file of a version into `folder`, and return its sha256."""
        limit, size, digest = MAX_BYTES[file], 0, hashlib.sha256()
        with (folder / file).open("xb") as target:
            for chunk in self._chunks(f"{source}/{file}", file):
                size += len(chunk)
                if size > limit:
                    raise InvalidBundle(f"{file}: has more than {limit} bytes, expected at most as many")
                digest.update(chunk)
                target.write(chunk)
        return digest.hexdigest()

    def _chunks(self, path: str, file: str) -> Iterator[bytes]:
        with self._failing():
            try:
                opened = self.files.open(path, "rb", block_size=CHUNK)
            except FileNotFoundError as error:
                raise InvalidBundle(f"{file}: missing from the bundle") from error
        with opened:
            while True:
                with self._failing():
                    chunk = opened.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    @contextmanager
    def _failing(self, *passed: type[Exception]) -> Iterator[None]:
        """Turn any other error of a storage's package into RemoteFailed: each has a tree of exceptions of its own."""
        try:
            yield
        except (SpikeserveError, FileExistsError):
            raise
        except passed:
            raise
        except FileNotFoundError as error:
            raise RemoteFailed(f"repository: {self.url} is not there, expected a bucket or folder: {error}") from error
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise RemoteFailed(f"repository: {self.url} cannot be used: {said}") from error


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
            self.remote.copy(name, version, self.root)
        return folder

    def place(self, name: str, version: int) -> str:
        """Return the URL of a version."""
        return f"{self.remote.url}/{name}/{version}"

    def _publish(self, name: str, write: Callable[[Path, int], None]) -> int:
        require_name(name)
        with tempfile.TemporaryDirectory() as written:

            def folder_of(version: int) -> Path:
                write(Path(written), version)
                return Path(written)

            return self.remote.publish(name, folder_of)


def repository_at(where: str | Path, limits: LoadLimits = DEFAULT_LIMITS) -> ModelRepository:
    """Return the repository at a folder or a URL."""
    return RemoteRepository(str(where), limits) if is_url(str(where)) else ModelRepository(Path(where), limits)


def listed(manifest: Path) -> dict[File, str]:
    """Return the files that a bundle.json lists, and the sha256 of each; raises InvalidBundle."""
    try:
        fields = json.loads(manifest.read_bytes())
        return dict(_FILES.validate_python(fields["files"] if isinstance(fields, dict) else None))
    except ValidationError as error:
        raise InvalidBundle(f"{MANIFEST}: files: {describe_first_error(error)}") from error
    except (ValueError, KeyError, RecursionError) as error:
        raise InvalidBundle(f"{MANIFEST}: is not the JSON of a bundle, expected one with `files`") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, so that several processes do not copy the same versions."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
