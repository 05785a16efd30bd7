"""The messages and methods of somebody's module of protobuf, as JSON: python -m tests.plugins.grpc.descriptors MODULE

Two libraries cannot be imported by one process, since each names its messages as the other does.
"""

import importlib
import json
import sys
import warnings
from typing import Any


def described_file(file: Any) -> dict[str, Any]:
    """Return the fields of each message of a file, and the methods of each service."""
    found: dict[str, Any] = {}

    def fields(message: Any) -> None:
        found[message.full_name] = [
            [each.number, each.name, each.type, each.label, each.message_type and each.message_type.full_name]
            for each in message.fields
        ]
        for nested in message.nested_types:
            fields(nested)

    for message in file.message_types_by_name.values():
        fields(message)
    methods = {
        service.full_name: {
            each.name: [each.input_type.full_name, each.output_type.full_name] for each in service.methods
        }
        for service in file.services_by_name.values()
    }
    return {"messages": found, "methods": methods}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        module = importlib.import_module(sys.argv[1])
    except ImportError:
        sys.exit(0)
    print(json.dumps(described_file(module.DESCRIPTOR)))
