"""The command `spikeserve keys`: make an API key, and print it with the line of its digest for a file of keys."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from spikeserve.service.keys import new_key

USAGE = 2
MAX_NAME = 64  # characters of a key's name, which is a comment in the file
HELP = """\
usage: spikeserve keys [NAME]

Makes an API key of 256 random bits. The server is given its digest only, as a line of the file that --api-keys @FILE or
--admin-keys @FILE names; NAME is a comment there, which says whose key it is.
"""


def main(arguments: Sequence[str]) -> int:
    """Make a key, print it and its line, and return the exit status."""
    if arguments and arguments[0].startswith("-"):
        print(HELP, end="", file=sys.stdout if arguments[0] in ("-h", "--help") else sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else USAGE
    name = " ".join(arguments)
    if len(name) > MAX_NAME or not name.isprintable():
        print(
            f"spikeserve: NAME is {name[:MAX_NAME]!a}, expected at most {MAX_NAME} characters on one line",
            file=sys.stderr,
        )
        return USAGE
    key, digest = new_key()
    print(f"The key, for the client; it is shown only here:\n{key}")
    print(f"Its line in the file of --api-keys @FILE or --admin-keys @FILE:\n{digest}{f'  # {name}' if name else ''}")
    return 0
