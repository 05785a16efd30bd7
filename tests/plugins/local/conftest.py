"""Fixtures of every test of a server."""

from tests.service.conftest import _no_descriptors_are_left as _no_descriptors_are_left
from tests.service.conftest import _no_settings_from_outside as _no_settings_from_outside
from tests.service.conftest import _plain_tracebacks as _plain_tracebacks
