"""The network as data: nodes, parameters and their validation."""

from spikeserve.models.spec.events import EventBinning as EventBinning
from spikeserve.models.spec.events import EventRule as EventRule
from spikeserve.models.spec.events import Origin as Origin
from spikeserve.models.spec.events import Polarity as Polarity
from spikeserve.models.spec.input import Input as Input
from spikeserve.models.spec.input import OutOfRange as OutOfRange
from spikeserve.models.spec.readouts import Readout as Readout
from spikeserve.models.spec.readouts import Scores as Scores
from spikeserve.models.spec.spec import INPUT as INPUT
from spikeserve.models.spec.spec import Coding as Coding
from spikeserve.models.spec.spec import Spec as Spec
from spikeserve.models.spec.spec import describe_first_error as describe_first_error
from spikeserve.models.spec.spec import validated as validated
