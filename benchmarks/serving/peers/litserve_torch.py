"""LitServe around the PyTorch module.

`python -m benchmarks.serving.peers.litserve_torch BUNDLE PORT WORKERS BATCH`, where a batch of 1 is no batching.
"""

from __future__ import annotations

import sys
from pathlib import Path

import litserve
import torch
from torch import Tensor

from benchmarks.serving.peers.network import Network, answer

BATCH_SECONDS = 0.001  # how long a batch waits for more requests


class Api(litserve.LitAPI):  # type: ignore[misc]
    """The four steps of a request, as LitServe calls them."""

    def __init__(self, bundle: Path, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=BATCH_SECONDS if batch > 1 else 0.0)
        self.bundle = bundle

    def setup(self, _: str) -> None:
        """Load the network, in each worker."""
        torch.set_num_threads(1)
        self.network = Network(self.bundle)

    # Without a type, since LitServe would have FastAPI take what is typed from the query.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Return the samples (samples, inputs) of a parsed body."""
        return torch.tensor(request["inputs"], dtype=torch.float32)

    def batch(self, inputs: list[Tensor]) -> Tensor:
        """Return the samples of several requests, one after the other; each holds one here."""
        return torch.cat(inputs)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        """Return each request's part of the counts."""
        return list(torch.split(output, 1))

    def predict(self, x: Tensor) -> Tensor:
        """Return the spike counts (samples, classes)."""
        with torch.inference_mode():
            counts: Tensor = self.network(x)
            return counts

    def encode_response(self, output: Tensor) -> dict[str, object]:
        """Return the answer."""
        return answer(output)


if __name__ == "__main__":
    bundle, port, workers, batch = sys.argv[1:]
    api = Api(Path(bundle), int(batch))
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=int(workers))
    server.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)
