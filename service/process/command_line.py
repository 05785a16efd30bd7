"""The command: serve until a signal says to stop. What a user got wrong is one sentence and exit status 2."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import cast

import structlog
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from models.errors import SpikeserveError
from service.app import create_app
from service.catalog.engine_choice import check_device
from service.errors import Misconfigured
from service.http.control import Control
from service.http.middleware.keys import KeyRing, is_loopback, new_key
from service.http.services import Services
from service.inference.validation import first_error
from service.process.control import Limits, WorkerControl
from service.process.listener import Listener
from service.process.server import Server
from service.process.supervisor import Supervisor, Wanted
from service.settings import ENVIRONMENT_PREFIX, Settings
from service.telemetry import logs

USAGE = 2
NEW_KEY = "new-key"  # the one word that is no setting
LIMITS = Limits()


def main(arguments: Sequence[str], limits: Limits = LIMITS) -> int:
    """Serve, or make a key, and return the process's exit status; `limits` are for several workers."""
    if list(arguments) == [NEW_KEY]:
        key, digest = new_key()
        print(
            f"key     {key}     for whoever asks; it is shown only here\ndigest  {digest}     for the server's settings"
        )
        return 0
    allow_many_connections()
    # Until there is a server that drains, a signal has nothing to wait for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = read_settings(arguments)
        app = create_app(settings, WorkerControl if settings.workers > 1 else Control)
        check_device(settings)
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
    return serve(app, settings, listener) if settings.workers == 1 else supervise(app, settings, listener, limits)


def serve(app: FastAPI, settings: Settings, listener: Listener) -> int:
    """Answer requests in this process until a signal says to stop, and return the exit status."""
    return run(Server(app, settings), listener)


def supervise(app: FastAPI, settings: Settings, listener: Listener, limits: Limits) -> int:
    """Answer requests in several processes until a signal says to stop, and return the exit status."""
    services: Services = app.state.services
    registry, control = services.registry, cast("WorkerControl", services.control)
    wanted = Wanted({name: list(versions) for name, versions in registry.models.items()})

    def work(number: int, connection: socket.socket, replaces: bool) -> int:
        if replaces:
            registry.adopt(wanted.versions, wanted.unloaded)
        control.attach(connection, number, replaces, limits.alive)
        server = Server(app, settings, supervised=True)
        control.orphaned = server.drain
        return run(server, listener)

    return Supervisor(settings.workers, wanted, settings.shutdown_seconds, work, limits).run()


def run(server: Server, listener: Listener) -> int:
    """Answer requests, and return the exit status."""
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server.status


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
