"""What a neuron is: the named neurons as programs, what each operation computes, and a layer through time."""

from spikeserve.models.neurons.layer import NeuronLayer as NeuronLayer
from spikeserve.models.neurons.layer import NeuronState as NeuronState
from spikeserve.models.neurons.layer import Recurrence as Recurrence
from spikeserve.models.neurons.layer import at_rest as at_rest
from spikeserve.models.neurons.layer import counts_steps as counts_steps
from spikeserve.models.neurons.named import once as once
from spikeserve.models.neurons.named import program_of as program_of
from spikeserve.models.neurons.operations import OPERATIONS as OPERATIONS
