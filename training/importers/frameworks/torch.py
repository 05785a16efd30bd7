"""Plain PyTorch: networks whose neurons are all their author's own code."""

from __future__ import annotations

from torch import nn

from spikeserve.training.importers.frameworks.framework import Framework, folded
from spikeserve.training.importers.frameworks.torch_modules import MODULES

FRAMEWORK = Framework(
    name="torch",
    rule="computes each step as its author's code does, in float32 and in the same order",
    containers=frozenset({nn.Sequential}),
    rules=MODULES,
    run=folded,
)
