"""MLServer around the PyTorch module; it runs where MLServer is installed, which is not beside our own service.

`python -m benchmarks.serving.peers.mlserver_torch BUNDLE PORT WORKERS BATCH SCRATCH`, where 0 workers run the model in
the server's own process, a batch of 1 is no batching, and SCRATCH is a folder that MLServer writes to. The access log,
metrics and compression are off, which only cost time here. gRPC cannot be switched off; it listens on a port of its own
and is not asked.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import mlserver
import torch
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from mlserver.utils import install_uvloop_event_loop

from benchmarks.serving.peers.network import Network

BATCH_SECONDS = 0.001  # how long a batch waits for more requests


class Runtime(mlserver.MLModel):  # type: ignore[misc]
    """A model as MLServer calls it, over the Open Inference Protocol v2."""

    async def load(self) -> bool:
        """Load the network, in each worker."""
        torch.set_num_threads(1)
        self.network = Network(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the service's fields for each sample, as tensors."""
        with torch.inference_mode():
            counts = self.network(torch.from_numpy(NumpyCodec.decode_input(payload.inputs[0])))
            classes, probabilities = counts.argmax(1, keepdim=True), counts.softmax(1)
        outputs = [
            ("class_index", "INT64", classes),
            ("spike_counts", "INT64", counts.int()),
            ("probabilities", "FP32", probabilities),
        ]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name=name, datatype=datatype, shape=tensor.shape, data=tensor.flatten().tolist())
                for name, datatype, tensor in outputs
            ],
        )


async def serve(bundle: Path, port: int, workers: int, batch: int, scratch: str) -> None:
    """Serve a bundle under its model's name until a signal comes."""
    server = mlserver.MLServer(
        mlserver.Settings(
            host="127.0.0.1",
            http_port=port,
            grpc_port=0,
            parallel_workers=workers,
            debug=False,
            metrics_endpoint=None,
            gzip_enabled=False,
            environments_dir=scratch,
            metrics_dir=scratch,
        )
    )
    logging.getLogger("mlserver").setLevel(logging.WARNING)
    model = mlserver.ModelSettings(
        name=bundle.parent.name,
        implementation=Runtime,
        max_batch_size=batch,
        max_batch_time=BATCH_SECONDS if batch > 1 else 0.0,
        parameters={"uri": str(bundle)},
    )
    await server.start([model])


if __name__ == "__main__":
    bundle, port, workers, batch, scratch = sys.argv[1:]
    install_uvloop_event_loop()
    asyncio.run(serve(Path(bundle), int(port), int(workers), int(batch), scratch))
