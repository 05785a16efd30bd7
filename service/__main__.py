"""`python -m service`: serve until a signal says to stop. What a user got wrong is one sentence and exit status 2."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import structlog
import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from models.errors import SpikeserveError
from service import faults, logs
from service.app import create_app
from service.connections import connections
from service.engines import check_device
from service.errors import Misconfigured
from service.keys import KeyRing, is_loopback
from service.settings import Settings

USAGE = 2
BACKLOG = 2048  # connections that wait to be accepted, as uvicorn has it


def main(arguments: Sequence[str]) -> int:
    """Serve, and return the process's exit status."""
    try:
        settings = read_settings(arguments)
        app = create_app(settings)
        check_device(settings)
        listener = listen(settings.host, settings.port)
    except SpikeserveError as error:
        print(f"spikeserve: {error}", file=sys.stderr)
        return USAGE
    # uvicorn drains on either signal and then raises it again, for whoever had a handler before; here that is success.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.configure(settings.log_level, sys.stdout)
    host, port = listener.getsockname()[:2]
    structlog.get_logger().info("listening", host=host, port=port, repository=str(settings.repository))
    warn_if_open(host, KeyRing.of(settings))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http=connections(settings.header_seconds),
        loop="asyncio",  # uvloop was measured to answer no more requests here
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def warn_if_open(host: str, keys: KeyRing) -> None:
    """Log a warning where other machines reach this address and whoever asks is answered."""
    if is_loopback(host):
        return
    log = structlog.get_logger()
    if not keys.clients:
        log.warning("no_api_keys", host=host, meaning="whoever reaches this address may use the models; see api_keys")
    if not keys:
        log.warning("no_admin_keys", host=host, meaning="and may load and unload them; see admin_keys")


def read_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings from flags and the environment; raises Misconfigured."""
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as error:
        raise Misconfigured(faults.first(error, fields=", ".join(Settings.model_fields)).sentence) from error
    except SettingsError as error:
        raise Misconfigured(str(error)) from error


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; raises Misconfigured."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, since asyncio turns Nagle's algorithm off only then; with it, each answer takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Misconfigured(f"host, port: cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
