"""A program of KServe's gRPC client, for a process of its own, as `triton_program` says.

It takes the server's address, and prints what the client got as JSON.
"""

import asyncio
import json
import sys
import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import grpc
    import kserve
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

SAMPLES = np.random.default_rng(3).random((20, 64), np.float32)
NAMES = ["spike_counts", "probabilities", "class_index", "synaptic_operations"]


async def ask(address: str) -> dict[str, Any]:
    """Ask all that the client can, and what its stubs have beside it."""
    found: dict[str, Any] = {"infer": []}
    async with kserve.InferenceGRPCClient(address) as client:
        found["health"] = [
            await client.is_server_live(),
            await client.is_server_ready(),
            await client.is_model_ready("digits"),
        ]
        for binary in (True, False):
            tensor = kserve.InferInput("inputs", list(SAMPLES.shape), "FP32")
            tensor.set_data_from_numpy(SAMPLES, binary_data=binary)
            answer = await client.infer(kserve.InferRequest("digits", [tensor], request_id="k"))
            assert answer.id == "k"
            arrays = {output.name: output.as_numpy() for output in answer.outputs}
            found["infer"].append(
                {n: (a[:, 0] if a.shape[1] == 1 else a).tolist() for n, a in arrays.items() if n in NAMES}
            )
    return found


def main(address: str) -> None:
    found = asyncio.run(ask(address))
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        gone = stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="spikes"))
        here = stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="spikes"))
        found["control"] = [gone.model_name, gone.isUnloaded, here.model_name, here.isLoaded]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
