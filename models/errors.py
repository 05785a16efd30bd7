"""The exceptions of this package, one tree; each message is a sentence for a person.

SpikeserveError
├── InvalidSpec        a network that could not run, or tensors that do not fit it
├── InvalidInput       a sample, seed or number of steps that the model does not take
├── InvalidBundle      a bundle that is damaged, incomplete or does not reproduce its golden samples
├── BundleNotFound     no such model or version in the repository
└── EngineUnavailable  an engine that is not installed here or cannot run this network
"""


class SpikeserveError(Exception):
    """The root of everything that this project raises on purpose."""


class InvalidSpec(SpikeserveError, ValueError):
    """A network that could not run; the message names the node and both values."""


class InvalidInput(SpikeserveError, ValueError):
    """An input that the model does not take; the message names the field, the value and what was expected."""


class InvalidBundle(SpikeserveError):
    """A bundle that must not be served; the message names the file or the sample."""


class BundleNotFound(SpikeserveError, LookupError):
    """A model or version that the repository does not hold."""


class EngineUnavailable(SpikeserveError):
    """An engine that is not installed, lacks its device or cannot run this network."""
