"""Replicas on Ray Serve until SIGTERM: `python -m benchmarks.scale.ray_replicas REPLICAS PORT`."""

from __future__ import annotations

import signal
import sys

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.plugins.ray.job import connected


def main(replicas: int, port: int) -> None:
    """Deploy so many replicas of the models that ship, each of one thread, and wait."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with connected(replicas + 2):
        from ray import serve  # after `connected`, which sets what it reads at import

        from deploy.ray.serving import deployment
        from spikeserve.service.process.flags import read_settings

        serve.start(http_options={"host": "127.0.0.1", "port": port})
        settings = read_settings(["--threads", "1", "--log-level", "error", "--repository", str(PRETRAINED)])
        app = deployment(settings).options(num_replicas=replicas, max_ongoing_requests=64)
        quiet = {"enable_access_log": False, "log_level": "ERROR"}
        try:
            serve.run(app.bind(), route_prefix="/", logging_config=quiet)
            signal.pause()
        finally:
            serve.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
