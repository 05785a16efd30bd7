"""HDF5 kept at arm's length: a file is read in a process of its own, with bounds on its time and its memory.

HDF5's C library trusts what it reads: a damaged file can send it round a circle for ever, or crash it
(https://github.com/HDFGroup/hdf5/issues/1707 is one of many). Only another process can be stopped, or can crash alone.
It costs some 0.2 s, the start of an interpreter with h5py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from training.errors import InvalidGraph
from training.importers.nir.answer import read_answer
from training.importers.nir.graph import NestedGraph
from training.importers.nir.limits import MOST_SECONDS


def read_contained(path: Path, seconds: float = MOST_SECONDS) -> tuple[NestedGraph, str]:
    """Return a file's graph and the version that it names; raises InvalidGraph, without the file's name, for any fault.

    The answer goes by way of a temporary file, which takes as much room as the file's arrays.
    """
    command = [sys.executable, "-P", "-m", "training.importers.nir.reader", str(path.absolute())]
    # It finds what this process finds, wherever it was started; numpy's threads would only reserve memory.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as answer:
        try:
            ended = subprocess.run(  # noqa: S603
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise InvalidGraph(f"it could not be read within {seconds:g} s: it is damaged, or too large") from error
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace").splitlines()[-1:]
            status = ": ".join([f"exit status {ended.returncode}", *said])
            raise InvalidGraph(f"the process that read it crashed ({status}); most likely it is damaged")
        answer.seek(0)
        return read_answer(answer)
