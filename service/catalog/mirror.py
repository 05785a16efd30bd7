"""The copies of a model repository that is elsewhere, brought up to date by a process of its own.

That process has the storage's packages in memory, and not the server. However long the storage takes, it ends after
MAX_SECONDS, and however much the storage answers, it takes no more than MAX_MEMORY. What is wanted of the
repository are the versions that the setting `versions` selects. Copies of versions that are gone from there are
removed; of a repository that holds no version at all, they are kept.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from spikeserve.models.bundle.copies import drop_damaged, locked, remove
from spikeserve.models.bundle.remote import Remote, RemoteFailed
from spikeserve.models.bundle.repository import DEFAULT, ModelRepository
from spikeserve.models.errors import InvalidBundle
from spikeserve.models.folders import write_whole
from spikeserve.models.isolated import Limits, NoAnswer, call, environment
from spikeserve.service.settings import Settings, chosen_versions

MAX_SECONDS = 600.0  # to look into a repository at a URL and to copy what is new there
MAX_MEMORY = 2**32  # bytes of addresses; s3fs and gcsfs start with a tenth of that
REFUSED = ".refused"  # the file that says why which files were refused, so that they are not copied at each look
LOOKED = ".looked"  # the file that was written last when the copies were brought up to date

log = structlog.get_logger()


@dataclass
class RefreshResult:
    """What was done: versions as `name/version`, why some were refused, and why the repository could not be used."""

    copied: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    failed: str | None = None


def refresh(settings: Settings, fresh: float = 0.0, doubted: tuple[str, int] | None = None) -> RefreshResult:
    """Bring the copies up to date, where the repository is elsewhere; takes as long as the copying does.

    Nothing is done where a process of this machine has done so in the last `fresh` seconds, such as another worker. The
    copy of a version that is `doubted`, since it could not be loaded, is made again if it is damaged.
    """
    if settings.url is None:
        return RefreshResult()
    with suppress(OSError):
        if time.time() - (settings.folder / LOOKED).stat().st_mtime < fresh:
            return RefreshResult()
    arguments = settings.url, str(settings.folder), settings.versions, doubted
    limits = Limits(MAX_SECONDS, MAX_MEMORY)
    try:
        # The storage's packages find their keys in the environment.
        return RefreshResult(**call(update, *arguments, limits=limits, refused=RemoteFailed, env=environment()))
    except RemoteFailed as error:
        failed = str(error)
    except MemoryError:
        failed = f"repository: {settings.url} answers with more than there is memory for"
    except TimeoutError:
        failed = f"repository: {settings.url} took longer than {limits.seconds:g} seconds"
    except (NoAnswer, OSError) as error:
        failed = f"repository: {settings.url} cannot be copied: {error}"
    return RefreshResult(failed=failed)


def tell(done: RefreshResult) -> None:
    """Log what was done."""
    for place in done.copied:
        log.info("bundle_copied", bundle=place)
    for place, reason in done.refused.items():
        log.warning("bundle_refused", bundle=place, error=reason)
    for place in done.removed:
        log.info("bundle_removed", bundle=place)
    if done.failed is not None:
        log.warning("repository_unreachable", error=done.failed)


def update(url: str, folder: str, versions: str, doubted: tuple[str, int] | None = None) -> RefreshResult:
    """Copy to `folder` what the repository at a URL has, and remove what it has no longer; raises SpikeserveError.

    A process of its own does this.
    """
    remote, done, here = Remote(url), RefreshResult(), ModelRepository(Path(folder))
    with locked(here.root):
        # Listed with the lock held: by an older list, what others have copied since would be removed.
        if not (there := remote.versions()):
            raise RemoteFailed(
                f"repository: {remote.url} holds no model, expected <name>/<version>/ with a bundle.json"
            )
        if doubted is not None:
            drop_damaged(here.root, *doubted)
        before, refused = dict[str, str](), dict[str, str]()  # why, by the place and the fingerprint of the files
        with suppress(OSError, ValueError):  # there was no look before, or half of the file was written
            before = dict(json.loads((here.root / REFUSED).read_bytes()))
        for name, numbers in there.items():
            for version in set(chosen_versions(versions, numbers)) - set(here.versions(name)):
                place = f"{name}/{version}"
                try:
                    files = f"{place} {remote.fingerprint(name, version)}"  # before they are read: no repair is missed
                    if files not in before:
                        drop_damaged(here.root, name, version)  # one without a bundle.json
                        remote.copy(name, version, here.root)
                        done.copied.append(place)
                        continue
                    reason = before[files]
                except InvalidBundle as error:
                    reason = str(error)
                except RemoteFailed as error:
                    done.failed = str(error)
                    return done
                done.refused[place] = refused[files] = reason
        (here.root / REFUSED).write_text(json.dumps(refused))
        for name in here.names():
            for version in set(here.versions(name)) - set(there.get(name, ())):
                remove(here.root, name, version)
                done.removed.append(f"{name}/{version}")
        write_whole(here.root / DEFAULT, (remote.default() or "").encode())  # servers read it without the lock
        (here.root / LOOKED).touch()
    return done
