"""The bundle, which is one immutable version of one model on disk, and the model repository, which holds bundles."""

from spikeserve.models.bundle.bundle import DEFAULT_LIMITS as DEFAULT_LIMITS
from spikeserve.models.bundle.bundle import FIRING_RATE as FIRING_RATE
from spikeserve.models.bundle.bundle import MANIFEST as MANIFEST
from spikeserve.models.bundle.bundle import TOLERANCE as TOLERANCE
from spikeserve.models.bundle.bundle import Bundle as Bundle
from spikeserve.models.bundle.bundle import Contents as Contents
from spikeserve.models.bundle.bundle import File as File
from spikeserve.models.bundle.bundle import GoldenSamples as GoldenSamples
from spikeserve.models.bundle.bundle import close as close
