"""NIR files in and out: read and repaired, put under a named dialect, published, written back."""

from collections.abc import Callable
from pathlib import Path

from spikeserve.models.door import Plugin

HEAD = 4096  # bytes, in which HDF5 has the names at the root of a small file
IN_NIR = "Publish a NIR file as the next version of a model, under a named dialect"
IN_LAVA = "Publish a network of lava-dl as a model's next version, in the whole numbers that Loihi computes with"


def _guess(suffix: str, group: bytes) -> Callable[[Path], float]:
    """Return how surely a file is one with this suffix and this group at its root; others may be HDF5 too."""

    def sure(path: Path) -> float:
        if path.suffix == suffix or not path.is_file():
            return float(path.suffix == suffix)
        with path.open("rb") as file:
            head = file.read(HEAD)
        return head.startswith(b"\x89HDF\r\n") * (0.8 if group in head else 0.4)

    return sure


PLUGINS = (
    Plugin("importer", "nir", ".commands:IMPORTER", IN_NIR, ("h5py",), "nir", _guess(".nir", b"node")),
    Plugin("target", "nir", ".target", "a NIR file", ("h5py", "typer"), "train"),
    Plugin("importer", "lava", ".lava.commands:IMPORTER", IN_LAVA, ("h5py",), "nir", _guess(".net", b"layer")),
)
