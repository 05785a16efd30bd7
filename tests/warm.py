"""Imports the service and compiles its kernels once; servers of tests are forks of the process that imports this."""

from spikeserve.models.door import quick_imports

with quick_imports():
    from spikeserve.service.inference.decoding.readers import prepare
    from spikeserve.service.process import command_line as command_line

    prepare("event")
