"""Third-party data that tests read where somebody has it: the folder that SPIKESERVE_REFERENCE_DATA names."""

import os
from pathlib import Path

import pytest

VARIABLE = "SPIKESERVE_REFERENCE_DATA"


def reference_data() -> Path:
    """Return the folder; the test is skipped where it is absent."""
    folder = os.environ.get(VARIABLE, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{VARIABLE} names no folder")
    return Path(folder)
