"""Message classes from a compiled .proto file.

They live in a descriptor pool of their own: the names of the protocol's messages are those of other libraries as well
(kserve, tritonclient), and one pool holds each name once. The descriptors are data, which every version of protobuf
reads, where the code that its compiler writes is bound to some versions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


@cache
def descriptors(name: str) -> DescriptorPool:
    """Return the descriptors of `<name>.proto` beside this file."""
    (file,) = FileDescriptorSet.FromString((Path(__file__).parent / f"{name}.binpb").read_bytes()).file
    pool = DescriptorPool()
    pool.Add(file)
    return pool


def message_classes(name: str) -> dict[str, Any]:
    """Return the message classes of `<name>.proto`, by their names."""
    described = descriptors(name).FindFileByName(f"{name}.proto")
    return {kind: GetMessageClass(message) for kind, message in described.message_types_by_name.items()}
