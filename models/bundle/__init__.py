"""The bundle, which is one immutable version of one model on disk, and the model repository, which holds bundles."""

from spikeserve.models.bundle.bundle import (
    DEFAULT_LIMITS,
    FIRING_RATE,
    MANIFEST,
    READOUT_TOLERANCE,
    Bundle,
    Contents,
    File,
    Golden,
    Header,
    close_readouts,
    header_of,
    read_files,
    read_manifest,
    write_files,
)

__all__ = [
    "DEFAULT_LIMITS",
    "FIRING_RATE",
    "MANIFEST",
    "READOUT_TOLERANCE",
    "Bundle",
    "Contents",
    "File",
    "Golden",
    "Header",
    "close_readouts",
    "header_of",
    "read_files",
    "read_manifest",
    "write_files",
]
