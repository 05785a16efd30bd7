"""Input coding: checks a client's samples, events and event records and encodes them as the input at each step."""

from spikeserve.models.coding.encode import CODINGS as CODINGS
from spikeserve.models.coding.encode import MAX_SEED as MAX_SEED
from spikeserve.models.coding.encode import encode as encode
from spikeserve.models.coding.encode import encode_next as encode_next
from spikeserve.models.coding.encode import normalise as normalise
from spikeserve.models.coding.events import EventCoder as EventCoder
from spikeserve.models.coding.events import Events as Events
from spikeserve.models.coding.events import encode_events as encode_events
from spikeserve.models.coding.events import indices as indices
from spikeserve.models.coding.events import rasterise as rasterise
from spikeserve.models.coding.inputs import DenseInputs as DenseInputs
from spikeserve.models.coding.inputs import EventInputs as EventInputs
from spikeserve.models.coding.inputs import Inputs as Inputs
from spikeserve.models.coding.inputs import join_inputs as join_inputs
