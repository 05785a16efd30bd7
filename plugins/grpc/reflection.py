"""Server reflection, by which grpcurl and the like learn of services and messages: versions 1 and 1alpha.

The messages are the same in both, and so few that their bytes are read and written here. The library for it allows one
major version of protobuf alone, and knows 1alpha only.
"""

from __future__ import annotations

from contextlib import suppress

from spikeserve.plugins.grpc.call import Call
from spikeserve.plugins.grpc.descriptors import descriptors
from spikeserve.plugins.grpc.methods import HEALTH, SERVICE
from spikeserve.plugins.grpc.protobuf import DELIMITED, FieldReader, MalformedMessage, TooManyFields
from spikeserve.plugins.grpc.wire import MAX_FIELDS, delimited
from spikeserve.service.errors import MalformedBody, shown

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
METHOD = "ServerReflectionInfo"

FILE, SYMBOL, LIST = 3, 4, 7  # the fields of a request that this server answers
ORIGINAL, FILES, SERVICE_LIST, ERROR = 2, 4, 6, 7  # those of an answer
NOT_FOUND = b"\x08\x05"  # the status code of an error, as the first field of its message


async def answer(call: Call) -> bytes:
    """Answer one question after the other. Raises BodyTooSlow, MalformedBody and Overloaded."""
    while (message := await call.read_next()) is not None:
        await call.write(reply(message.content))
        call.holds.close()
    return b""


def reply(asked: bytes) -> bytes:
    """Return the bytes of a ServerReflectionResponse to those of a request. Raises MalformedBody."""
    try:
        fields = list(FieldReader(asked, MAX_FIELDS).fields(0, len(asked)))
    except (MalformedMessage, TooManyFields) as error:
        raise MalformedBody("the message is not a ServerReflectionRequest, expected one") from error
    values = {each.number: asked[each.start : each.stop] for each in fields if each.kind == DELIMITED}
    return delimited(ORIGINAL, asked) + _answer_field(values)


def _answer_field(asked: dict[int, bytes]) -> bytes:
    """Return the field of an answer: the services, the file that a name is in, or an error."""
    if LIST in asked:
        listed = b"".join(delimited(1, delimited(1, each.encode())) for each in (SERVICE, HEALTH))
        return delimited(SERVICE_LIST, listed)
    name = asked.get(SYMBOL, asked.get(FILE, b"")).decode(errors="replace")
    for pool in map(descriptors, ("messages", "health")):
        with suppress(KeyError):
            file = pool.FindFileContainingSymbol(name) if SYMBOL in asked else pool.FindFileByName(name)
            return delimited(FILES, delimited(1, file.serialized_pb))
    sentence = f"{shown(name)} is no symbol or file of this server, expected one of {SERVICE} or {HEALTH}"
    return delimited(ERROR, NOT_FOUND + delimited(2, sentence.encode()))
