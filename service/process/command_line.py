"""The command `spikeserve serve`: serve until a signal. A wrong setting prints one sentence and exits with 2."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from mmap import mmap
from typing import cast

import structlog
from fastapi import FastAPI

from spikeserve.models.bundle.copies import CACHE
from spikeserve.models.door import FOLDER, LET_IN
from spikeserve.models.errors import SpikeserveError
from spikeserve.service.app import create_app
from spikeserve.service.catalog.control import Control
from spikeserve.service.catalog.engine_choice import check_engine, compiles_first
from spikeserve.service.catalog.mirror import tell
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.errors import Misconfigured
from spikeserve.service.http.access import ANY, is_loopback
from spikeserve.service.inference.decoding.memory import share_heap
from spikeserve.service.keys import KeyRing
from spikeserve.service.keys import main as make_key
from spikeserve.service.process import check
from spikeserve.service.process.control import WorkerControl
from spikeserve.service.process.flags import read_settings
from spikeserve.service.process.listener import Listener, listen
from spikeserve.service.process.protocols import protocols_of
from spikeserve.service.process.server import FILE_THREADS, PAGE_THREADS, Server, keep_from_collector
from spikeserve.service.process.supervisor import Supervisor
from spikeserve.service.services import Services
from spikeserve.service.settings import ENVIRONMENT_PREFIX, Settings
from spikeserve.service.telemetry import logs

USAGE = 2
HEADROOM_BYTES = 2**27  # of addresses for kernels, models and requests; they are not touched, so this takes no time
# Beside the threads that run and load: two for bodies and answers, one that ends a late shutdown, one that reads the
# fork server's answers, and those of `service.process.server` for files. The limit of processes counts threads too.
# Three processes count as well: the fork server, its child that verifies a version, and the compiler of kernels.
OTHER_THREADS = 4 + FILE_THREADS + PAGE_THREADS
OTHER_PROCESSES = 3

log = structlog.get_logger()


def main(arguments: Sequence[str]) -> int:
    """Serve, make a key, or check bundles, and return the exit status."""
    match list(arguments):
        case ["new-key", *others]:
            return make_key(others)
        case ["check", *others]:
            return check.main(others)
    raise_file_limit()
    share_heap()
    try:
        settings = read_settings(arguments)
        app = create_app(settings, WorkerControl if settings.workers > 1 else Control, keep_from_collector)
        check_engine(settings)
        protocols = protocols_of(settings)
        check_limits(settings, sum(protocol.threads for protocol, _ in protocols.values()))
        listener = listen(settings.host, settings.port)
        reserved = ExitStack()
        for protocol, its_port in protocols.values():
            reserved.enter_context(protocol.reserve(listener.getsockname()[0], its_port))
    except SpikeserveError as error:
        print(f"spikeserve: {error}", file=sys.stderr)
        return USAGE
    logs.configure(settings.log_level, sys.stdout)
    host, port = listener.getsockname()[:2]
    # A port that the system chose is logged at every log level, since nobody would know it otherwise.
    write = log.info if settings.port else getattr(log, settings.log_level)
    ports = {setting: its_port for setting, (_, its_port) in protocols.items()}
    write("listening", host=host, port=port, **ports, repository=str(settings.repository))
    keys = KeyRing.of(settings)
    services: Services = app.state.services
    tell(services.loader.copied)
    log.info("keys", clients=len(keys.clients), admins=len(keys.admins))
    warn_if_open(host, keys, settings.origins)
    warn_if_unknown(os.environ, settings)
    if services.catalog.models:
        processes = services.loader.processes
        if processes.compiler is not None:
            log.info("compiling_kernels", meaning=f"answers come by {processes.engine} until then")
        elif compiles_first(processes.engine):
            log.info("compiling_kernels", meaning="once on this machine; it takes some 20 s")
        processes.prepare()
    with reserved:
        return supervise(app, settings, listener) if settings.workers > 1 else run(Server(app, settings), listener)


def supervise(app: FastAPI, settings: Settings, listener: Listener) -> int:
    """Serve in several worker processes until a signal, and return the exit status."""
    services: Services = app.state.services

    def work(number: int, connection: socket.socket, replaces: bool) -> int:
        if replaces:
            services.loader.adopt(supervisor.versions, supervisor.unloaded)
        server = Server(app, settings, supervised=True)
        cast("WorkerControl", services.control).attach(connection, number, replaces, server.drain)
        listener.counts, listener.number = supervisor.connections, number
        return run(server, listener)

    versions = {name: list(some) for name, some in services.catalog.models.items()}
    supervisor = Supervisor(settings.workers, versions, settings.shutdown_seconds, work)
    return supervisor.run()


def run(server: Server, listener: Listener) -> int:
    """Run the server, and return the exit status."""
    server.services.loader.processes.fork()  # while this process has one thread
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return server.status


def check_limits(settings: Settings, more_threads: int) -> None:
    """Start and end as many threads as one worker and its loads need, and reserve memory; raises Misconfigured.

    A compiler without memory would end the process later, and a thread that cannot start would fail a request.
    """
    if settings.workers > 1 and not hasattr(os, "fork"):
        raise Misconfigured(f"workers: is {settings.workers}, but this system forks no process, expected 1")
    with Threads(2 * settings.threads + OTHER_THREADS + OTHER_PROCESSES + more_threads, "check"):
        try:
            mmap(-1, HEADROOM_BYTES).close()
        except OSError as error:
            raise Misconfigured(
                f"memory: the system lets this process have less than {HEADROOM_BYTES // 2**20} MiB more, expected as "
                "much for kernels, models and requests; raise its limit (ulimit -v)"
            ) from error


def raise_file_limit() -> None:
    """Raise this process's limit of open files to the hard limit, since each connection is an open file."""
    # Windows has no such limit, and some systems report a hard limit that they do not allow.
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def warn_if_open(host: str, keys: KeyRing, origins: Collection[str] = ()) -> None:
    """Log a warning if other machines, or web pages of others, can reach this address and no key is needed."""
    if ANY in origins and not keys.clients:
        log.warning("any_origin", meaning="any web page that is opened near here can use the models; see api_keys")
    if is_loopback(host):
        return
    if not keys.clients:
        log.warning("no_api_keys", host=host, meaning="anyone can use the models; see api_keys")
    if not keys:
        log.warning("no_admin_keys", host=host, meaning="anyone can load and unload models; see admin_keys")


def warn_if_unknown(environment: Iterable[str], settings: Settings) -> None:
    """Log a warning for environment variables that have the prefix of settings but name none."""
    known = {f"{ENVIRONMENT_PREFIX}{name}".upper() for name in type(settings).model_fields} | {CACHE, FOLDER, LET_IN}
    alike = {each for each in environment if each.upper().startswith(ENVIRONMENT_PREFIX)}
    if unknown := sorted(each for each in alike if each.upper() not in known):
        log.warning("unknown_variables", names=unknown, meaning="no setting has such a name")
