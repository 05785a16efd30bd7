"""Imports the service and compiles its kernels once; servers of tests are forks of the process that imports this."""

import gc
import os

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")  # as the service's own start has it, before it imports

from pydantic import BaseModel

BaseModel.model_config["defer_build"] = True

from spikeserve.service.inference.decoding.readers import prepare  # noqa: E402
from spikeserve.service.process import command_line as command_line  # noqa: E402

prepare("event")
gc.freeze()
