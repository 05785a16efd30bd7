"""Who runs the same networks on the same inputs: our engines, other libraries, and what one would write by hand."""

from benchmarks.contestants.base import Job
from benchmarks.contestants.choose import CONTESTANTS, prepare, result

__all__ = ["CONTESTANTS", "Job", "prepare", "result"]
