"""Serve the models that ship, and ask for the class of a drawn digit.

pip install '.[serve,client]'
python examples/serve_and_ask.py
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from spikeserve import Client

SERVE = [sys.executable, "-m", "spikeserve", "serve", "--port", "0"]  # as `spikeserve serve`; 0 takes a free port

stroke = np.zeros((1, 8, 8))
stroke[0, 1:7, 3:5] = 16  # pixels are from 0 to 16

with subprocess.Popen(SERVE, stdout=subprocess.PIPE) as server:
    try:
        assert server.stdout is not None
        log = map(json.loads, server.stdout)
        port = next(line["port"] for line in log if line["event"] == "listening")
        next(line for line in log if (line["event"], line.get("model")) == ("model_ready", "digits"))
        with Client(f"http://127.0.0.1:{port}", model="digits") as client:
            (prediction,) = client.predict(stroke)
        print(f"class {prediction.label}, spikes of each class {prediction.spike_counts.tolist()}")
    finally:
        server.terminate()
