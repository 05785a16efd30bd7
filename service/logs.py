"""Structured logs: one JSON object per line, from this package and from uvicorn alike."""

from __future__ import annotations

import json
import logging
from typing import TextIO

import structlog

SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def configure(level: str, stream: TextIO) -> None:
    """Set up logging for the whole process; only the command line does, so that importing this package does not.

    This package writes its lines itself: through the standard library's logging each would take three times as long.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _as_json],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*SHARED, _as_json],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


_encode = json.JSONEncoder(default=repr).encode  # made once; what is not ASCII is escaped, so that no text can fail


def _as_json(_: object, __: str, entry: structlog.typing.EventDict) -> str:
    return _encode(entry)
