"""The flags of `spikeserve serve`, which are the settings."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from spikeserve.models.bundle.copies import CACHE
from spikeserve.service.errors import Misconfigured
from spikeserve.service.inference.decoding.validation import first_error
from spikeserve.service.settings import ENVIRONMENT_PREFIX, PLUGGED, REMOVED, Settings, with_protocols


def read_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings from flags and the environment; raises Misconfigured, also for one that is not there."""
    settings = with_protocols()
    flags = {argument.partition("=")[0] for argument in arguments}
    for name, instead in (REMOVED | PLUGGED).items():
        variable, flag = f"{ENVIRONMENT_PREFIX}{name}".upper(), f"--{name.replace('_', '-')}"
        is_set = (variable in os.environ and variable != CACHE) or flag in flags
        if is_set and name not in settings.model_fields:
            ever = "here" if name in PLUGGED else "any more"
            raise Misconfigured(f"{name}: is no setting {ever} ({variable}, {flag}); {instead}")
    try:
        return CliApp.run(settings, cli_args=list(arguments))
    except ValidationError as error:
        raise Misconfigured(first_error(error, fields=", ".join(settings.model_fields))) from error
    except SettingsError as error:
        said = str(error).removeprefix("error parsing CLI: ")
        flag = re.sub(r".*arguments: (--[\w-]+).*", r"\1", said)
        near = get_close_matches(flag, [f"--{name.replace('_', '-')}" for name in settings.model_fields], 1, 0.8)
        raise Misconfigured(f"{said}; {f'did you mean {near[0]}?' if near else '--help lists the flags'}") from error
