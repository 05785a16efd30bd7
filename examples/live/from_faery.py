"""Take the events that faery sends over UDP, and stream them to a model: faery reads cameras and files, and filters.

python examples/live/from_faery.py --port 7777 --model gestures
faery input file recording.raw output udp 127.0.0.1:7777 --format t32_x16_y15_on1
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikeserve import RECORD, Client, SpikeserveError

LONG = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])  # t64_x16_y16_on8, faery's default


def packets(port: int, long: bool, idle: float | None) -> Iterator[NDArray[Any]]:
    """Yield the events of each packet; wait for the first one, and for the next ones `idle` seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", port))
        print(f"listening on port {receiver.getsockname()[1]}", flush=True)
        while True:
            try:
                packet = receiver.recv(2**16)
            except TimeoutError:
                return
            receiver.settimeout(idle)
            events = np.frombuffer(packet, LONG if long else RECORD).copy()
            if not long:  # the polarity is the lowest bit of y there, and the highest in a record
                events["y"] = events["y"] >> 1 | (events["y"] & 1) << 15
            yield events


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=7777, help="of UDP, on the loopback; 0 takes a free one")
    parser.add_argument("--long", action="store_true", help="packets are t64_x16_y16_on8, of 13 bytes an event")
    parser.add_argument("--idle", type=float, help="end after so many seconds without a further packet")
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--model", help="by default the server's own")
    chosen = parser.parse_args()
    try:
        with Client(chosen.url, model=chosen.model) as client:
            for window in client.stream(packets(chosen.port, chosen.long, chosen.idle)):
                print(f"{window.t / 1e6:.3f} s: {window.events} events, {window.label}", flush=True)
    except SpikeserveError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
