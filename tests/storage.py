"""An S3 server on the loopback, for tests of repositories elsewhere."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

BUCKET = "bundles"


@contextmanager
def s3(cache: Path) -> Iterator[str]:
    """Run a server and yield the URL of an empty repository in a bucket.

    This process and those that it starts find it by the variables of Amazon's clients, and keep copies in `cache`.
    """
    with warnings.catch_warnings():  # of the packages that the server is made of
        warnings.simplefilter("ignore")
        from moto.server import ThreadedMotoServer
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("SPIKESERVE_REPOSITORY_CACHE", str(cache))
            fsspec.filesystem("s3").clear_instance_cache()  # it may hold a client of another server
            if not fsspec.filesystem("s3").exists(BUCKET):  # servers of one process hold the same buckets
                fsspec.filesystem("s3").mkdir(BUCKET)
            yield f"s3://{BUCKET}/{uuid4().hex}"
    finally:
        server.stop()
        fsspec.filesystem("s3").clear_instance_cache()
