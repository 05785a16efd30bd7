"""What goes wrong in training, in sentences.

TrainingError
├── InvalidData           a data set that cannot be trained on
├── InvalidConfig         a configuration that cannot be run
├── InvalidGraph          a NIR file that cannot be read, or a graph that cannot be served
├── InvalidRules          a NIR file whose dialect, dt or reset nobody names, or which are none
├── BrokenGradientChain   a loss that no weight has a part in
└── ExportRefused         a network whose engines do not agree
"""

from models.errors import SpikeserveError


class TrainingError(SpikeserveError):
    """The root of this package's errors."""


class InvalidData(TrainingError, ValueError):
    """A data set that cannot be trained on; the message names the array, the value and what was expected."""


class InvalidConfig(TrainingError, ValueError):
    """A configuration that cannot be run; the message names the field, the value and what was expected."""


class InvalidGraph(TrainingError, ValueError):
    """A graph that cannot be read or served; the message names the node, the value and what was expected."""


class InvalidRules(TrainingError, ValueError):
    """Rules that a NIR file lacks or gets wrong; the message lists them and what there is to name."""


class BrokenGradientChain(TrainingError):
    """A loss without a grad_fn; the message says which usual causes to look at."""


class ExportRefused(TrainingError):
    """A network that is not exported because its engines do not agree on the test set."""
