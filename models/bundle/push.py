"""The command `spikeserve push`: copy a bundle that has been published here to a repository elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spikeserve.models.bundle import Bundle
from spikeserve.models.bundle.gallery import bundle_folder
from spikeserve.models.bundle.remote import Remote
from spikeserve.models.errors import SpikeserveError

HELP = """\
usage: spikeserve push BUNDLE URL

Copies a bundle, <repository>/<name>/<version> or the newest of a model's name, to a repository elsewhere such as
s3://bucket/models, as the same version. The bundle is read and its hashes checked first. A version that is there
already is left as it is: with status 0 if it is the same bundle, and 1 if it is another.
"""


def main(arguments: Sequence[str]) -> int:
    """Copy a bundle, and return the exit status."""
    if len(arguments) != 2 or arguments[0].startswith("-"):
        asked = list(arguments) in (["-h"], ["--help"])
        print(HELP, end="", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    url = arguments[1]
    try:
        folder = bundle_folder(arguments[0])
        manifest = Bundle.read(folder).manifest
        copied = Remote(url).push(manifest.name, manifest.version, folder)
    except SpikeserveError as error:
        print(f"spikeserve: {error}", file=sys.stderr)
        return 1
    print(f"{'Copied to' if copied else 'It is already at'} {url.rstrip('/')}/{manifest.name}/{manifest.version}")
    return 0
