"""The calls of this project that a small `POST /predict` passes, in order: `python -m benchmarks.hops`.

A real server runs on a free port of the loopback, answers a few requests for the digits that ship, and notes each call
of a function of `service` or `models` while it answers one more. With `--all` the engine's inside is listed too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

from spikeserve.service.app import create_app
from spikeserve.service.http.openapi import ZERO
from spikeserve.service.process.command_line import listen
from spikeserve.service.process.server import Server
from spikeserve.service.settings import Settings

OURS = Path(__file__).parents[1] / "spikeserve"
INSIDE = "models/engines/"
UNCOUNTED = 5  # requests before the one that is noted: the first of a connection takes a longer way


class Trace:
    """Notes the project's own calls on the thread that it is installed on, while it is `on`."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call, as `sys.setprofile` asks."""
        code = frame.f_code
        if self.on and event == "call" and code.co_filename.startswith((f"{OURS}/service", f"{OURS}/models")):
            self.calls.append((Path(code.co_filename).relative_to(OURS).as_posix(), code.co_qualname))


def ask(port: int, trace: Trace) -> None:
    """Send the requests once the model answers, then end this process's server."""
    body = json.dumps({"inputs": [ZERO]})
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def post() -> int:
        connection.request("POST", "/predict", body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status

    while post() != http.client.OK:
        pass
    for _ in range(UNCOUNTED):
        post()
    trace.on = True
    post()
    trace.on = False
    signal.raise_signal(signal.SIGTERM)


def noted() -> list[tuple[str, str]]:
    """Return the calls of one request, each as its file and its function, in order."""
    settings, trace = Settings(port=0, log_level="error"), Trace()
    listener = listen(settings.host, settings.port)
    client = threading.Thread(target=ask, args=(listener.getsockname()[1], trace))
    client.start()
    sys.setprofile(trace)
    try:
        with redirect_stdout(StringIO()):
            Server(create_app(settings), settings).run(sockets=[listener])
    finally:
        sys.setprofile(None)
    client.join()
    begin = next(at for at, (_, function) in enumerate(trace.calls) if function == "Connection.data_received")
    return trace.calls[begin:]  # what ends the request before is still noted


def main(arguments: Sequence[str]) -> None:
    """Print the calls up to the engine's run and after it, and how many they are in how many files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also the calls inside the engine")
    options = parser.parse_args(arguments)
    calls = noted()
    first = next(at for at, (file, _) in enumerate(calls) if file.startswith(INSIDE))
    last = max(at for at, (file, _) in enumerate(calls) if file.startswith(INSIDE + "event"))
    shown = calls if options.all else [*calls[:first], (INSIDE, "…"), *calls[last + 1 :]]
    for number, (file, function) in enumerate(shown, start=1):
        print(f"{number:4}  {file}  {function}")
    before = calls[:first]
    print(
        f"{len(before)} calls before the engine, {len(set(before))} functions in {len({file for file, _ in before})} "
        f"files; {len(calls) - last - 1} calls after it"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
