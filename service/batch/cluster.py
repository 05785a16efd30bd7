"""A Ray cluster: one that is there already, or one of this machine that ends with the command."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from spikeserve.service.errors import Misconfigured

STORE_BYTES = 2**27  # of a local cluster's object store, which holds the parts on their way between two processes
MIN_STORE_BYTES = 75 * 2**20  # the least that Ray takes
ADDRESS = "RAY_ADDRESS"
CONNECT_SECONDS = 10.0  # for a cluster to accept a connection; Ray itself would try for minutes

LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's name for: every address is that of the loopback
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else each process writes to this terminal
}


def local_environment() -> None:
    """Set what Ray reads when it is first imported: a local cluster is for this process alone."""
    os.environ |= {**LOCAL, "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)}


@contextmanager
def connected(cpus: int, address: str | None = None, store_bytes: int = STORE_BYTES) -> Iterator[None]:
    """Connect to the cluster at `address`, by default at RAY_ADDRESS, or else start a local one of so many CPUs.

    A process that is connected already stays so. A local cluster ends with the block. It listens on the loopback only,
    with a token of its own, without a dashboard, and reports nothing to anyone; for that, Ray must not have been
    imported before. Raises Misconfigured where there is no cluster at the address, or none of this version of Ray.
    """
    address = address or os.environ.get(ADDRESS)
    if not address and "ray" not in sys.modules:
        local_environment()
    import ray  # reads its environment at import

    if ray.is_initialized():
        yield
        return
    if address:
        _require_answer(address)
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Misconfigured(f"address: '{address}' cannot be used: {' '.join(str(error).split())}") from error
    else:
        ray.init(
            "local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=max(MIN_STORE_BYTES, store_bytes),
            log_to_driver=False,
            logging_level="ERROR",
            # Its processes find what this one finds.
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise Misconfigured where nothing listens at an address of the form host:port; Ray has other forms too."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise Misconfigured(f"address: no Ray cluster answers at '{address}': {error}") from error
