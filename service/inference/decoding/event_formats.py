"""The formats of recordings, by how their files begin: AEDAT4, EVT (raw), DAT, ES and CSV."""

from __future__ import annotations

import re
from enum import StrEnum

from spikeserve.models.coding.columns import FIELDS

HEAD_BYTES = 2**12  # of a file that are looked at: the headers of EVT and DAT are some hundreds
SEPARATORS = (",", ";", "\t")

_LINES = re.compile(rb"(?:%[ -~\t]*\r?\n)+")  # the header of EVT and of DAT
_IS_EVT = re.compile(rb"^% *(?:evt |format +evt)", re.IGNORECASE | re.MULTILINE)
_TEXT = re.compile(rb"[ -~\t]*\r?\n")


class FileFormat(StrEnum):
    """A format of recordings; its value is what people call it."""

    AEDAT = "AEDAT"
    EVT = "EVT"
    DAT = "DAT"
    ES = "ES"
    CSV = "CSV"


def file_format(content: bytes) -> FileFormat | None:
    """Return the format of a recording by its first bytes, or None for anything else."""
    if content.startswith(b"#!AER-DAT"):
        return FileFormat.AEDAT
    if content.startswith(b"Event Stream"):
        return FileFormat.ES
    if header := _LINES.match(content, 0, HEAD_BYTES):
        return FileFormat.EVT if _IS_EVT.search(header[0]) else FileFormat.DAT
    return FileFormat.CSV if column_names(content)[0] else None


def column_names(content: bytes) -> tuple[list[str], str]:
    """Return the names in the first line of a CSV, of which one is that of a time, and their separator.

    There are no names where it does not begin with such a line.
    """
    line = _TEXT.match(content, 0, HEAD_BYTES)
    text = line[0].decode().strip() if line else ""
    separator = next((each for each in SEPARATORS if each in text), ",")
    names = [name.strip().strip('"').partition("@")[0] for name in text.split(separator)]
    return (names, separator) if len(names) > 1 and {*map(str.lower, names)} & {*FIELDS["t"]} else ([], separator)
