"""The complexity of a network and of its runs: NeuroBench's metrics by its names.

NeuroBench defines them in "The NeuroBench framework for benchmarking neuromorphic computing algorithms and systems"
(Yik et al., Nature Communications 16, 2025); what its harness, version 2.3, computes is followed to the integer.
"""

from spikeserve.plugins.report.complexity.complexity import Complexity, Work

__all__ = ["Complexity", "Work"]
