"""The copies of a model repository that is elsewhere, brought up to date by a process of its own.

That process has the storage's packages in memory, and not the server. However long the storage takes, it ends after
MAX_SECONDS, and however much the storage answers, it takes no more than MAX_MEMORY. What is wanted of the
repository are the versions that the setting `versions` selects. Copies of versions that are gone from there are
removed; of a repository that holds no version at all, they are kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from spikeserve.models.bundle.copies import CACHE, drop_damaged, locked, remove
from spikeserve.models.bundle.remote import Remote, RemoteFailed, more_than_memory
from spikeserve.models.bundle.repository import DEFAULT, ModelRepository
from spikeserve.models.errors import InvalidBundle
from spikeserve.models.isolated import Limits, NoAnswer, call, environment
from spikeserve.service.settings import Settings, chosen_versions

MAX_SECONDS = 600.0  # to look into a repository at a URL and to copy what is new there
MAX_MEMORY = 2**32  # bytes of addresses; s3fs and gcsfs start with a tenth of that
REFUSED = ".refused"  # the file of versions that were refused, so that they are not copied again at each look
LOOKED = ".looked"  # the file that was written last when the copies were brought up to date

log = structlog.get_logger()


@dataclass
class Refreshed:
    """What was done: versions as `name/version`, why some were refused, and why the repository could not be used."""

    copied: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failed: str | None = None


class Refused(BaseModel):
    """Why a version was refused, and the fingerprint of its files then."""

    fingerprint: str
    reason: str


_REFUSED = TypeAdapter(dict[str, Refused])


def refresh(settings: Settings, fresh: float = 0.0, doubted: tuple[str, int] | None = None) -> Refreshed:
    """Bring the copies up to date, where the repository is elsewhere; takes as long as the copying does.

    Nothing is done where a process of this machine has done so in the last `fresh` seconds, such as another worker. The
    copy of a version that is `doubted`, since it could not be loaded, is made again if it is damaged.
    """
    if settings.url is None or _age(settings.folder / LOOKED) < fresh:
        return Refreshed()
    url, limits = settings.url, Limits(MAX_SECONDS, MAX_MEMORY)
    arguments = url, str(settings.folder), settings.versions, doubted
    try:
        # The storage's packages find their keys in the environment.
        done = call(update, *arguments, limits=limits, refused=RemoteFailed, env=environment())
        return Refreshed(**done)
    except RemoteFailed as error:
        return Refreshed(failed=str(error))
    except MemoryError:
        return Refreshed(failed=more_than_memory(url))
    except TimeoutError:
        reason = f"took longer than {limits.seconds:g} seconds"
    except (NoAnswer, OSError) as error:
        reason = f"cannot be copied: {error}"
    return Refreshed(failed=f"repository: {url} {reason}")


def tell(done: Refreshed) -> None:
    """Log what was done."""
    for place in done.copied:
        log.info("bundle_copied", bundle=place)
    for place, reason in done.refused.items():
        log.warning("bundle_refused", bundle=place, error=reason)
    for place in done.removed:
        log.info("bundle_removed", bundle=place)
    if done.failed is not None:
        log.warning("repository_unreachable", error=done.failed)


def update(url: str, folder: str, versions: str, doubted: tuple[str, int] | None = None) -> Refreshed:
    """Bring the copies in a folder up to date: a process of its own does this. Raises SpikeserveError."""
    try:
        return brought_up_to_date(Remote(url), Path(folder), versions, doubted)
    except OSError as error:
        raise RemoteFailed(f"{CACHE}: {folder} cannot be written: {error.strerror}") from error


def brought_up_to_date(
    remote: Remote, folder: Path, versions: str, doubted: tuple[str, int] | None = None
) -> Refreshed:
    """Copy to `folder` what a repository elsewhere has, and remove what it has no longer."""
    done, here = Refreshed(), ModelRepository(folder)
    with locked(folder):
        # Listed with the lock held: by an older list, what others have copied since would be removed.
        there = remote.versions()
        if not there:
            raise RemoteFailed(
                f"repository: {remote.url} holds no model, expected <name>/<version>/ with a bundle.json"
            )
        if doubted is not None:
            drop_damaged(folder, *doubted)
        refused = _refused(folder)
        for name, found in there.items():
            for version in set(chosen_versions(versions, found)) - set(here.versions(name)):
                place = f"{name}/{version}"
                try:
                    now = remote.fingerprint(name, version)  # before they are read, so that no repair is overlooked
                    if place not in refused or refused[place].fingerprint != now:
                        drop_damaged(folder, name, version)  # one without a bundle.json
                        remote.copy(name, version, folder)
                        done.copied.append(place)
                        continue
                except InvalidBundle as error:
                    refused[place] = Refused(fingerprint=now, reason=str(error))
                except RemoteFailed as error:
                    done.failed = str(error)
                    return done
                done.refused[place] = refused[place].reason
        _write(folder / REFUSED, _REFUSED.dump_json({place: refused[place] for place in done.refused}).decode())
        for name, version in _gone(here, there):
            remove(folder, name, version)
            done.removed.append(f"{name}/{version}")
        _write(folder / DEFAULT, remote.default() or "")
        (folder / LOOKED).touch()
    return done


def _refused(folder: Path) -> dict[str, Refused]:
    """Return the refusals of the last time when copies were brought up to date."""
    try:
        return _REFUSED.validate_json((folder / REFUSED).read_bytes())
    except (OSError, ValidationError):  # there was no such time, or a version of this project that wrote it otherwise
        return {}


def _write(path: Path, text: str) -> None:
    """Write a file at once, since servers read it without the lock."""
    written = path.with_name(f"{path.name}.new")
    written.write_text(text)
    written.replace(path)


def _age(path: Path) -> float:
    """Return the seconds since a file was written, infinite where there is none."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return math.inf


def _gone(here: ModelRepository, there: Mapping[str, list[int]]) -> list[tuple[str, int]]:
    return [(name, each) for name in here.names() for each in here.versions(name) if each not in there.get(name, ())]
