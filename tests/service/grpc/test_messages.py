"""Our messages are the protocol's: names, numbers and types are those of the stubs that KServe and Triton ship."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from spikeserve.service.grpc import messages
from tests.service.grpc.descriptors import described_file
from tests.serving import ROOT


def described(module: str) -> dict[str, Any]:
    """Return the fields of each message of a module, and the methods of its service."""
    command = [sys.executable, "-m", "tests.service.grpc.descriptors", module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    if not done.stdout:
        pytest.skip(f"{module} is not installed here: it is of the extra 'clients'")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ours() -> dict[str, Any]:
    """Return the same of our own messages."""
    return described_file(messages.ModelInferRequest.DESCRIPTOR.file)


REPOSITORY = {"inference.RepositoryModelLoadRequest", "inference.RepositoryModelUnloadRequest"}
SOME_FIELDS = {"inference.ModelConfig"}  # of which the service fills a part


def test_messages_are_those_that_triton_ships() -> None:
    mine, theirs = ours(), described("tritonclient.grpc.service_pb2")
    shared = mine["messages"].keys() & theirs["messages"].keys()
    assert len(shared) == len(mine["messages"]) - 7  # the seven of the configuration are of another file
    for name in (
        shared - SOME_FIELDS - {"inference.RepositoryModelLoadResponse", "inference.RepositoryModelUnloadResponse"}
    ):
        assert mine["messages"][name] == theirs["messages"][name], name
    for name in shared & SOME_FIELDS:
        assert all(field in theirs["messages"][name] for field in mine["messages"][name]), name
    methods = mine["methods"]["inference.GRPCInferenceService"]
    assert methods.items() <= theirs["methods"]["inference.GRPCInferenceService"].items()


def test_the_configuration_has_fields_of_those_that_triton_ships() -> None:
    mine, theirs = ours()["messages"], described("tritonclient.grpc.model_config_pb2")["messages"]
    for name in ("ModelConfig", "ModelInput", "ModelOutput", "ModelParameter", "ModelSequenceBatching"):
        fields = mine[f"inference.{name}"]
        assert fields, name
        assert all(field in theirs[f"inference.{name}"] for field in fields), name


def test_messages_are_those_that_kserve_ships() -> None:
    mine, theirs = ours(), described("kserve.protocol.grpc.grpc_predict_v2_pb2")
    assert len(theirs["methods"]["inference.GRPCInferenceService"]) == 8
    assert (
        theirs["methods"]["inference.GRPCInferenceService"].items()
        <= mine["methods"]["inference.GRPCInferenceService"].items()
    )
    for name, fields in theirs["messages"].items():
        if name in REPOSITORY:  # Triton has another name first, and KServe's is of the same number and type
            assert [[each[0], *each[2:]] for each in fields] == [[1, 9, 1, None]]
            assert mine["messages"][name][0][0] == 1
            assert mine["messages"][name][0][2:] == fields[0][2:]
        elif name == "inference.InferParameter":  # Triton has two choices more
            assert mine["messages"][name][: len(fields)] == fields
        else:
            assert mine["messages"][name] == fields, name


def test_what_is_compiled_is_what_the_proto_files_say(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed: the extra 'dev' has it")
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts/messages", tmp_path], env=environment, check=True, timeout=120)
    for name in ("messages", "health"):
        made, kept = (
            FileDescriptorSet.FromString((folder / f"{name}.binpb").read_bytes())
            for folder in (tmp_path, ROOT / "service/grpc")
        )
        assert made == kept, name
        types = (ROOT / f"service/grpc/{name}.pyi").read_text()
        assert [each.name for each in made.file[0].message_type if f"class {each.name}(" not in types] == []
