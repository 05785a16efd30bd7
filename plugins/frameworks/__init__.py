"""Networks of other frameworks, taken in module by module: each framework's own file says what it computes."""

from spikeserve.models.door import Plugin

PLUGINS: tuple[Plugin, ...] = ()
