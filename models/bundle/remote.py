"""A model repository elsewhere, such as a bucket: its bundles are copied here and verified, and new ones published.

It has the layout of one on disk, `<name>/<version>/`, below a URL that fsspec opens: `s3://bucket/models` (s3fs),
`gs://bucket/models` (gcsfs), `hf://owner/repository/models` (huggingface_hub), and others. Keys are found as those
packages find them, so that no URL has to hold one.

What comes from there is not trusted more than any bundle: no file is copied that bundle.json does not list, and none
larger than a bundle's may be. A version appears on this machine whole, with the hashes that its bundle.json says, or
not at all. `models.bundle.copies` has the folder of these copies.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, StringConstraints

from spikeserve.models.bundle import MANIFEST
from spikeserve.models.bundle.bundle import MAX_BYTES, File, Sha256, read_checked
from spikeserve.models.bundle.repository import DEFAULT, MAX_DEFAULT_BYTES, next_version
from spikeserve.models.errors import InvalidBundle, InvalidInput, SpikeserveError, bounded_line, install
from spikeserve.models.folders import INCOMING, appearing, made
from spikeserve.models.spec import validated

CLAIM = ".claim"  # the file that a publisher makes first: its version is taken
CHUNK = 2**22  # bytes that are read at once
MAX_FILES = 100_000  # of a whole repository, so of some 20,000 versions

Url = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*://.+")]
Versions: TypeAlias = dict[str, list[int]]

CONNECT_SECONDS, READ_SECONDS = 5, 10  # after which a server that does not answer is given up, or asked again
FILE_SECONDS = 600  # for a file or for all files of a version, however slowly they come
LEFT_SECONDS = 6 * FILE_SECONDS  # after the start of its newest file a copy counts as left by a process that ended

# What is missing where a kind of URL is not opened, and how to get it.
NEEDED = {
    "s3": f"needs s3fs, expected the extra `remote`: {install('remote')}",
    "gs": f"needs gcsfs, expected the extra `remote`: {install('remote')}",
    "hf": f"needs huggingface_hub, expected the extra `hub`: {install('hub')}",
    "oci": "needs ocifs, Oracle's package for its object storage: pip install ocifs; a model in an OCI image is not "
    "read from a registry, expected the folder where the image is mounted or that it was built into",
}

_VERSION_FILE = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]{0,63})/(?P<version>[1-9][0-9]{0,8})/(?P<file>[^/]+)")


class RemoteFailed(SpikeserveError):
    """A repository elsewhere that cannot be read or written; the message names its URL.

    It is one line of bounded length, whatever the storage answered.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(bounded_line(sentence))


def is_url(where: str) -> bool:
    """Return whether a repository is elsewhere."""
    return "://" in where


class Remote:
    """The repository at a URL. Raises RemoteFailed where it cannot be used, InvalidInput for a URL that none opens."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        kind = self.url.partition("://")[0]
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # it logs tracebacks of what it raises as well
        try:
            from fsspec.core import url_to_fs  # here, since only a repository elsewhere needs it

            with self._failing(ImportError, ValueError):
                self.files, root = url_to_fs(self.url, **_options(kind))
        except ImportError as error:
            needed = NEEDED.get(kind, f"needs a package that is in no extra of spikeserve: {error}")
            raise InvalidInput(f"repository: '{url}' {needed}") from error
        except ValueError as error:
            raise InvalidInput(f"repository: '{url}' is no URL that fsspec opens: {error}") from error
        self.root = str(root).rstrip("/")
        if kind == "hf":
            self.root = self.root.removeprefix("models/")  # which its lists leave out

    def versions(self) -> Versions:
        """Return the versions of each model, ascending: the folders that hold a bundle.json."""
        return {name: sorted(some) for name, some in sorted(self._listed(MANIFEST).items())}

    def default(self) -> str | None:
        """Read the file `default`; None where there is none, or one that is too long."""
        try:
            return b"".join(self._chunks(DEFAULT)).decode(errors="replace")
        except InvalidBundle:
            return None

    def fingerprint(self, name: str, version: int) -> str:
        """Return a value that changes when a version's files change, by what the storage lists of them."""
        with self._failing():
            details = self.files.find(f"{self.root}/{name}/{version}", detail=True)
        return hashlib.sha256(json.dumps(details, sort_keys=True, default=str).encode()).hexdigest()

    def copy(self, name: str, version: int, folder: Path) -> None:
        """Copy a version into `folder`/name/version, whole or not at all.

        Who copies to a folder that others may copy to holds its lock. Raises InvalidBundle where a file is not what
        bundle.json says, RemoteFailed, and OSError of this disk.
        """
        ends = time.monotonic() + FILE_SECONDS
        copied(lambda file: self._chunks(f"{name}/{version}/{file}", ends), folder / name, version)

    def read_file(self, name: str, version: int, file: str) -> bytes:
        """Read one of a version's files, no longer than MAX_BYTES says; raises InvalidBundle and RemoteFailed."""
        return b"".join(self._chunks(f"{name}/{version}/{file}"))

    def size(self, name: str, version: int) -> int:
        """Return how many bytes a version's files have, as the storage says."""
        with self._failing():
            return int(self.files.du(f"{self.root}/{name}/{version}"))

    def next_version(self, name: str) -> int:
        """Return a version above all of a model's; raises InvalidInput where there is none."""
        return next_version(f"{self.url}/{name}", self._listed(CLAIM, MANIFEST).get(name, ()))

    def push(self, name: str, version: int, folder: Path) -> bool:
        """Write a bundle that has been published here, by its own version; return False where it is there already.

        Raises InvalidInput where another bundle has that version.
        """
        if version in self.versions().get(name, ()):
            if self.read_file(name, version, MANIFEST) == (folder / MANIFEST).read_bytes():
                return False
            raise InvalidInput(
                f"version: {self.url} has another bundle as '{name}' version {version}, expected a new version: "
                "publish it again"
            )
        if not self.put(name, version, folder, resume=True):
            raise InvalidInput(
                f"version: '{name}' version {version} at {self.url} is being written by somebody, or was left behind: "
                f"expected another version, or remove {name}/{version}/ there"
            )
        return True

    def put(self, name: str, version: int, folder: Path, *, resume: bool = False) -> bool:
        """Claim a version and write its files; if one fails, none of them is left, nor the claim.

        Readers see it once bundle.json is there, which is written last. Returns False where the version is another's.
        The claim is the sha256 of bundle.json, and so of all files. With `resume` a claim of the same bundle is taken
        over, such as one that a killed push left: a push that still runs writes the same bytes.
        """
        target = f"{self.root}/{name}/{version}"
        claim = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest().encode()
        try:
            with self._failing(FileExistsError):
                if not self.files.async_impl:  # storage with real folders, such as file://
                    self.files.makedirs(target, exist_ok=True)
                self.files.pipe_file(f"{target}/{CLAIM}", claim, mode="create")
        except FileExistsError:
            if not resume or self.read_file(name, version, CLAIM) != claim:
                return False
        if version in self._listed(MANIFEST).get(name, ()):  # another's, whose claim has gone since it was listed
            with self._failing():
                self.files.rm_file(f"{target}/{CLAIM}")
            return False
        try:
            with self._failing():
                for file in [*listed(folder / MANIFEST), MANIFEST]:
                    self.files.put_file(str(folder / file), f"{target}/{file}")
        except BaseException:
            with suppress(Exception):  # the storage is out of reach, which is why it failed
                self.files.invalidate_cache()
                if self.files.exists(f"{target}/{CLAIM}"):  # else another push of this bundle has ended
                    for file in (MANIFEST, *File, CLAIM):
                        with suppress(Exception):  # it was not written
                            self.files.rm_file(f"{target}/{file}")
            raise
        with suppress(FileNotFoundError), self._failing(FileNotFoundError):
            self.files.rm_file(f"{target}/{CLAIM}")
        return True

    def _listed(self, *files: str) -> dict[str, set[int]]:
        """Return the versions of each model that hold one of the files."""
        versions: dict[str, set[int]] = {}
        with self._failing():
            self.files.invalidate_cache()
            paths = self.files.find(self.root)
        if len(paths) > MAX_FILES:
            raise RemoteFailed(f"repository: {self.url} holds {len(paths)} files, expected at most {MAX_FILES}")
        for path in paths:
            place = _VERSION_FILE.fullmatch(str(path).removeprefix(f"{self.root}/"))
            if place is not None and place["file"] in files:
                versions.setdefault(place["name"], set()).add(int(place["version"]))
        return versions

    def _chunks(self, path: str, ends: float | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file below the root; raises InvalidBundle where there is none, or it has too many.

        `ends` is the latest monotonic time; None for FILE_SECONDS from now. A pipe is not opened: it may have no end.
        """
        file, place, ends = path.rpartition("/")[2], f"{self.root}/{path}", ends or time.monotonic() + FILE_SECONDS
        most = MAX_BYTES.get(file, MAX_DEFAULT_BYTES)
        with self._failing():
            try:
                info = self.files.info(place)
            except FileNotFoundError as error:
                raise InvalidBundle(f"{file}: missing from the bundle") from error
            if info["type"] != "file":
                raise InvalidBundle(f"{file}: is not a file")
            size, said = 0, info["size"] or 0
            with self.files.open(place, "rb", block_size=CHUNK) as opened:
                while max(size, said) <= most:  # what the storage says is looked at before any of it is copied
                    if not (chunk := opened.read(CHUNK)):
                        return
                    if time.monotonic() > ends:
                        raise RemoteFailed(f"repository: {place} takes longer than {FILE_SECONDS} seconds to read")
                    size += len(chunk)
                    yield chunk
            raise InvalidBundle(f"{file}: has more than {most} bytes, expected at most as many")

    @contextmanager
    def _failing(self, *passed: type[Exception]) -> Iterator[None]:
        """Turn any other error of a storage's package into RemoteFailed: each has a tree of exceptions of its own."""
        try:
            yield
        except passed:
            raise
        except (SpikeserveError, MemoryError):
            raise
        except FileNotFoundError as error:
            raise RemoteFailed(f"repository: {self.url} is not there, expected a bucket or folder: {error}") from error
        except Exception as error:
            said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise RemoteFailed(f"repository: {self.url} cannot be used: {said}") from error


def copied(chunks_of: Callable[[str], Iterable[bytes]], home: Path, version: int) -> None:
    """Copy a version into the folder of its model, whole or not at all.

    `chunks_of` gives the bytes of a file. What a killed process left of a copy is removed. Raises InvalidBundle where a
    file is not what bundle.json says, what `chunks_of` raises, and OSError of this disk.
    """
    with made(home):
        for left in home.glob(f"{INCOMING}*"):
            with suppress(FileNotFoundError):  # another process has just finished it
                if left.lstat().st_mtime < time.time() - LEFT_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        with appearing(home / str(version)) as incoming:
            (incoming / MANIFEST).write_bytes(b"".join(chunks_of(MANIFEST)))
            for file, digest in listed(incoming / MANIFEST).items():
                with (incoming / file).open("xb") as target:
                    target.writelines(chunks_of(file))
                read_checked(incoming / file, digest)


class _Listed(BaseModel):
    """What is read of a bundle.json, of whatever version of this project, before its files are."""

    files: dict[File, Sha256]


def listed(manifest: Path) -> dict[File, str]:
    """Return the files that a bundle.json lists, and the sha256 of each; raises InvalidBundle."""
    return dict(validated(InvalidBundle, MANIFEST, _Listed.model_validate_json, manifest.read_bytes()).files)


def _options(kind: str) -> dict[str, Any]:
    """Return options for a storage's package, so that it does not wait for a server for many minutes."""
    if kind == "s3":
        times = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": {**times, "retries": {"max_attempts": 1}}}
    if kind in ("gs", "gcs", "http", "https"):
        from aiohttp import ClientTimeout  # which gcsfs asks with, up to six times

        seconds = ClientTimeout(total=FILE_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"client_kwargs": {"timeout": seconds}} if kind in ("http", "https") else {"requests_timeout": seconds}
    return {}
