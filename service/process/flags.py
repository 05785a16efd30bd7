"""The flags of `spikeserve serve`, which are the settings."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from spikeserve.service.errors import Misconfigured
from spikeserve.service.inference.decoding.validation import first_error
from spikeserve.service.settings import Settings


def read_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings from flags and the environment; raises Misconfigured."""
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as error:
        raise Misconfigured(first_error(error, fields=", ".join(Settings.model_fields)).sentence) from error
    except SettingsError as error:
        raise Misconfigured(f"{str(error).removeprefix('error parsing CLI: ')}; --help lists the flags") from error
