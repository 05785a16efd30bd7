"""What goes wrong in training, in sentences.

TrainingError
├── InvalidData           a data set that cannot be trained on
├── InvalidConfig         a configuration that cannot be run
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


class BrokenGradientChain(TrainingError):
    """A loss without a grad_fn; the message says which usual causes to look at."""


class ExportRefused(TrainingError):
    """A network that is not exported because its engines do not agree on the test set."""
