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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import StringConstraints, TypeAdapter, ValidationError

from spikeserve.models.bundle import MANIFEST
from spikeserve.models.bundle.bundle import MAX_BYTES, File, Sha256
from spikeserve.models.bundle.repository import DEFAULT, MAX_DEFAULT_BYTES, MAX_VERSION, flush
from spikeserve.models.errors import InvalidBundle, InvalidInput, SpikeserveError, bounded_line, install
from spikeserve.models.folders import made
from spikeserve.models.spec import describe_first_error

CLAIM = ".claim"  # the file that a publisher makes first: its version is taken
CHUNK = 2**22  # bytes that are read at once
MAX_FILES = 100_000  # of a whole repository, so of some 20,000 versions
FULL = 0.9  # of the addresses that a process may have: what fails then, fails for want of memory
MAX_TRIES = 100  # of a publisher, to take a version before others do

INCOMING = ".incoming-"  # what begins the names of folders that are no version yet

Url = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*://.+")]
Versions: TypeAlias = dict[str, list[int]]

CONNECT_SECONDS, READ_SECONDS = 5, 10  # after which a server that does not answer is given up, or asked again
FILE_SECONDS = 600  # for a file, however slowly it comes
LEFT_SECONDS = 6 * FILE_SECONDS  # since a copy began a file: whoever made it was killed

# What is missing where a kind of URL is not opened, and how to get it.
NEEDED = {
    "s3": f"needs s3fs, expected the extra `remote`: {install('remote')}",
    "gs": f"needs gcsfs, expected the extra `remote`: {install('remote')}",
    "hf": f"needs huggingface_hub, expected the extra `hub`: {install('hub')}",
    "oci": "needs ocifs, Oracle's package for its object storage: pip install ocifs",
}

# What is said besides where a kind of URL cannot be used, since it may have been meant as something else.
HINTS = {
    "oci": "; a model in an OCI image is not read from a registry, expected the folder where the image is mounted or "
    "that it was built into",
}

_VERSION_FILE = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]{0,63})/(?P<version>[1-9][0-9]{0,8})/(?P<file>[^/]+)")
_FILES = TypeAdapter(dict[File, Sha256])


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
        self.hint = HINTS.get(kind, "")
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # it logs tracebacks of what it raises as well
        try:
            from fsspec.core import url_to_fs  # here, since only a repository elsewhere needs it
        except ImportError as error:
            raise InvalidInput(
                f"repository: '{url}' needs fsspec, expected the extra `remote`: {install('remote')}"
            ) from error
        try:
            with self._failing(ImportError, ValueError):
                self.files, root = url_to_fs(self.url, **_options(kind))
        except ImportError as error:
            needed = NEEDED.get(kind, f"needs a package that is in no extra of spikeserve: {error}")
            raise InvalidInput(f"repository: '{url}' {needed}{self.hint}") from error
        except ValueError as error:
            raise InvalidInput(f"repository: '{url}' is no URL that fsspec opens: {error}") from error
        self.root = str(root).rstrip("/")
        if kind == "hf":
            self.root = self.root.removeprefix("models/")  # which its lists leave out

    def versions(self) -> Versions:
        """Return the versions of each model, ascending: the folders that hold a bundle.json."""
        return {name: sorted(some) for name, some in sorted(self._listed(MANIFEST).items())}

    def default(self) -> str | None:
        """Read the file `default`; None where there is none."""
        with self._failing():
            try:
                with self._open(f"{self.root}/{DEFAULT}", MAX_DEFAULT_BYTES) as file:
                    return str(file.read(MAX_DEFAULT_BYTES)[:MAX_DEFAULT_BYTES].decode(errors="replace"))
            except FileNotFoundError:
                return None

    def fingerprint(self, name: str, version: int) -> str:
        """Return a value that changes when a version's files change, by what the storage lists of them."""
        with self._failing():
            found = self.files.find(f"{self.root}/{name}/{version}", detail=True)
        return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()

    def copy(self, name: str, version: int, folder: Path) -> None:
        """Copy a version into `folder`/name/version, whole or not at all.

        Who copies to a folder that others may copy to holds its lock. Raises InvalidBundle where a file is not what
        bundle.json says, RemoteFailed, and OSError of this disk.
        """
        source = f"{self.root}/{name}/{version}"
        copied(lambda file, incoming: self._fetch(source, file, incoming), folder / name, version)

    def read_file(self, name: str, version: int, file: str) -> bytes:
        """Read one of a version's files, no longer than MAX_BYTES says; raises InvalidBundle and RemoteFailed."""
        content = b""
        for chunk in self._chunks(f"{self.root}/{name}/{version}/{file}", file):
            content += chunk
            _check_size(file, len(content))
        return content

    def size(self, name: str, version: int) -> int:
        """Return how many bytes a version's files have, as the storage says."""
        with self._failing():
            return int(self.files.du(f"{self.root}/{name}/{version}"))

    def publish(self, name: str, folder_of: Callable[[int], Path]) -> int:
        """Write a bundle as the model's next version, and return that version.

        `folder_of` is given the version and returns the folder of its files. Readers see the bundle once bundle.json is
        there, which is written last. Two publishers do not write one version, where the storage can make a file only if
        there is none: S3 and Google's can.
        """
        version = self._claimed(name)
        self._put(name, version, folder_of)
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
        self._put(name, version, lambda _: folder)
        return True

    def _claimed(self, name: str) -> int:
        """Take the version after all that others have written, or begun to write, and return it."""
        for _ in range(MAX_TRIES):
            version = max(self._listed(CLAIM, MANIFEST).get(name, ()), default=0) + 1
            if version > MAX_VERSION:
                raise InvalidInput(
                    f"version: '{name}' at {self.url} has version {MAX_VERSION}, the highest there is, expected lower "
                    "ones only: remove it, or publish by another name"
                )
            if self._claim(name, version):
                return version
        raise RemoteFailed(
            f"repository: {self.url}/{name} has had its next version taken by others {MAX_TRIES} times, expected fewer "
            "publishers at once"
        )

    def _claim(self, name: str, version: int) -> bool:
        with self._failing():
            try:
                self.files.pipe_file(f"{self.root}/{name}/{version}/{CLAIM}", b"", mode="create")
            except FileExistsError:
                return False
        return True

    def _put(self, name: str, version: int, folder_of: Callable[[int], Path]) -> None:
        """Write the files of a claimed version, bundle.json last; if one fails, none of them is left, nor the claim."""
        target, written = f"{self.root}/{name}/{version}", [CLAIM]
        try:
            folder = folder_of(version)
            for file in [*listed(folder / MANIFEST), MANIFEST]:
                written.append(file)
                with self._failing():
                    self.files.put_file(str(folder / file), f"{target}/{file}")
        except BaseException:
            for file in reversed(written):
                with suppress(Exception):  # the storage may be out of reach, which is why it failed
                    self.files.rm_file(f"{target}/{file}")
            raise
        with self._failing():
            self.files.rm_file(f"{target}/{CLAIM}")

    def _listed(self, *files: str) -> dict[str, set[int]]:
        """Return the versions of each model that hold one of the files."""
        found: dict[str, set[int]] = {}
        with self._failing():
            self.files.invalidate_cache()
            paths = self.files.find(self.root)
        if len(paths) > MAX_FILES:
            raise RemoteFailed(f"repository: {self.url} holds {len(paths)} files, expected at most {MAX_FILES}")
        for path in paths:
            place = _VERSION_FILE.fullmatch(str(path).removeprefix(f"{self.root}/"))
            if place is not None and place["file"] in files:
                found.setdefault(place["name"], set()).add(int(place["version"]))
        return found

    def _fetch(self, source: str, file: str, folder: Path) -> str:
        """Copy a file of a version into `folder`, and return its sha256."""
        size, digest = 0, hashlib.sha256()
        with (folder / file).open("xb") as target:
            for chunk in self._chunks(f"{source}/{file}", file):
                size += len(chunk)
                _check_size(file, size)
                digest.update(chunk)
                target.write(chunk)
        return digest.hexdigest()

    def _open(self, path: str, block_size: int) -> Any:
        """Open a file; raises FileNotFoundError, for a pipe too, since that may have no end."""
        if self.files.info(path)["type"] != "file":
            raise FileNotFoundError(path)
        return self.files.open(path, "rb", block_size=block_size)

    def _chunks(self, path: str, file: str) -> Iterator[bytes]:
        ends = time.monotonic() + FILE_SECONDS
        with self._failing():
            try:
                opened = self._open(path, CHUNK)
            except FileNotFoundError as error:
                raise InvalidBundle(f"{file}: missing from the bundle") from error
        with opened:
            _check_size(file, opened.size or 0)  # as the storage says, before any of it is copied
            while True:
                with self._failing():
                    chunk = opened.read(CHUNK)
                if not chunk:
                    return
                if time.monotonic() > ends:
                    raise RemoteFailed(f"repository: {path} takes longer than {FILE_SECONDS} seconds to read")
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
            # Of what broke a connection midway, aiohttp keeps the text alone, or nothing.
            causes = _causes(error)
            if any(isinstance(each, MemoryError) or repr(MemoryError()) in str(each) for each in causes) or _is_full():
                raise RemoteFailed(more_than_memory(self.url)) from error
            said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise RemoteFailed(f"repository: {self.url} cannot be used: {said}{self.hint}") from error


def copied(fetch: Callable[[str, Path], str], home: Path, version: int) -> None:
    """Copy a version into the folder of its model, whole or not at all.

    `fetch` copies a file into a folder, and returns its sha256. What a killed process left of a copy is removed. Raises
    InvalidBundle where a file is not what bundle.json says, what `fetch` raises, and OSError of this disk.
    """
    with made(home):
        for left in home.glob(f"{INCOMING}*"):
            with suppress(FileNotFoundError):  # another process has just finished it
                if left.lstat().st_mtime < time.time() - LEFT_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
        incoming = Path(tempfile.mkdtemp(prefix=INCOMING, dir=home))
        try:
            fetch(MANIFEST, incoming)
            for file, expected in listed(incoming / MANIFEST).items():
                found = fetch(file, incoming)
                if found != expected:
                    raise InvalidBundle(f"{file}: its sha256 is {found[:12]}…, but {MANIFEST} says {expected[:12]}…")
            incoming.chmod(0o755)
            flush(incoming)
            incoming.rename(home / str(version))
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


def listed(manifest: Path) -> dict[File, str]:
    """Return the files that a bundle.json lists, and the sha256 of each; raises InvalidBundle."""
    try:
        fields = json.loads(manifest.read_bytes())
        return dict(_FILES.validate_python(fields["files"] if isinstance(fields, dict) else None))
    except ValidationError as error:
        raise InvalidBundle(f"{MANIFEST}: files: {describe_first_error(error)}") from error
    except (ValueError, KeyError, RecursionError) as error:
        raise InvalidBundle(f"{MANIFEST}: is not the JSON of a bundle, expected one with `files`") from error


def more_than_memory(url: str) -> str:
    """Return the sentence on a storage whose answer has no room."""
    return f"repository: {url} answers with more than there is memory for"


def _is_full() -> bool:
    """Return whether this process has had nearly all the addresses that it may have, where it has such a limit."""
    if sys.platform != "linux":
        return False
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    peak = re.search(r"VmPeak:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return most != resource.RLIM_INFINITY and peak is not None and int(peak[1]) * 1024 > FULL * most


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what led to it, as the storages' packages raise errors of their own instead."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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


def _check_size(file: str, size: int) -> None:
    if size > MAX_BYTES[file]:
        raise InvalidBundle(f"{file}: has more than {MAX_BYTES[file]} bytes, expected at most as many")
