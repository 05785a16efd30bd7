"""The command: serve until a signal says to stop. What a user got wrong is one sentence and exit status 2."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import structlog
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from models.errors import SpikeserveError
from service.app import create_app
from service.catalog.engine_choice import check_device
from service.errors import Misconfigured
from service.http.middleware.keys import KeyRing, is_loopback
from service.inference.validation import first_error
from service.process.fellows import Fellows, meeting_place
from service.process.listener import Listener
from service.process.server import Server
from service.process.supervisor import Supervisor
from service.settings import ENVIRONMENT_PREFIX, Settings
from service.telemetry import logs

USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Serve, and return the process's exit status."""
    allow_many_connections()
    # Until there is a server that drains, a signal has nothing to wait for but that what was made is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        try:
            settings = read_settings(arguments)
            app = create_app(settings)
            check_device(settings)
            folder = stack.enter_context(meeting_place()) if settings.workers > 1 else None
            listener = listen(settings.host, settings.port)
        except SpikeserveError as error:
            print(f"spikeserve: {error}", file=sys.stderr)
            return USAGE
        logs.configure(settings.log_level, sys.stdout)
        host, port = listener.getsockname()[:2]
        log = structlog.get_logger()
        # A port that was chosen here is said at whatever level is logged, for who started this to know it.
        say = log.info if settings.port else getattr(log, settings.log_level)
        say("listening", host=host, port=port, repository=str(settings.repository))
        keys = KeyRing.of(settings)
        log.info("keys", clients=len(keys.clients), admins=len(keys.admins))
        warn_if_open(host, keys)
        warn_if_unknown(os.environ)
        return serve(app, settings, listener, folder)


def serve(app: FastAPI, settings: Settings, listener: Listener, folder: Path | None) -> int:
    """Answer requests until a signal says to stop, and return the exit status; several workers meet in `folder`."""

    def work(number: int, parent: int | None, replaces: bool) -> int:
        own = (
            app
            if folder is None
            else create_app(settings, Fellows(folder, number, settings.workers), loads_first=replaces)
        )
        server = Server(own, settings, parent)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
        return server.status

    if folder is None:
        return work(0, None, replaces=False)
    return Supervisor(settings.workers, folder, settings.shutdown_seconds, work).run()


def allow_many_connections() -> None:
    """Let this process, and those that it starts, have as many files open as they may: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where even the system's own bound is more than it lets anyone have
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def warn_if_open(host: str, keys: KeyRing) -> None:
    """Log a warning where other machines reach this address and whoever asks is answered."""
    if is_loopback(host):
        return
    log = structlog.get_logger()
    if not keys.clients:
        log.warning("no_api_keys", host=host, meaning="whoever reaches this address may use the models; see api_keys")
    if not keys:
        log.warning("no_admin_keys", host=host, meaning="and may load and unload them; see admin_keys")


def warn_if_unknown(environment: Iterable[str]) -> None:
    """Log a warning where variables are named like settings, and there are no such settings."""
    known = {f"{ENVIRONMENT_PREFIX}{name}".upper() for name in Settings.model_fields}
    alike = {each for each in environment if each.upper().startswith(ENVIRONMENT_PREFIX)}
    unknown = sorted(each for each in alike if each.upper() not in known)
    if unknown:
        structlog.get_logger().warning("unknown_variables", names=unknown, meaning="no setting has such a name")


def read_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings from flags and the environment; raises Misconfigured."""
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as error:
        raise Misconfigured(first_error(error, fields=", ".join(Settings.model_fields)).sentence) from error
    except SettingsError as error:
        raise Misconfigured(f"{str(error).removeprefix('error parsing CLI: ')}; --help lists the flags") from error


def listen(host: str, port: int) -> Listener:
    """Return a socket that listens there; raises Misconfigured."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP, since asyncio turns Nagle's algorithm off only then; with it, each answer takes 40 ms longer.
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise Misconfigured(f"host, port: cannot listen on {host} port {port}: {error.strerror}") from error
    return listener
