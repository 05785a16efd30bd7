"""Whether a manifest is of its kind: by the schemas of Kubernetes' versions, and by the classes of KServe's client."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import kubernetes_validate

VERSIONS = ("1.32", kubernetes_validate.latest_version())  # the oldest that deploy/README.md names, and the newest
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-a-runtime"}}
KSERVE = {"ServingRuntime": "V1alpha1ServingRuntime", "InferenceService": "V1beta1InferenceService"}


def faults(document: dict[str, Any]) -> list[str]:
    """Say what is wrong with a manifest, such as a field that its kind does not have; of Kubernetes the first fault."""
    if document["apiVersion"].startswith("serving.kserve.io/"):
        pod = {name: document["spec"][name] for name in ("containers", "volumes") if name in document["spec"]}
        found = _process().submit(_all_unknown, document).result()
        return [*found, *(faults({**POD, "spec": pod}) if pod else ())]
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(each) for each in error.absolute_path)
            found.append(f"{where} in {version}: {error.message}")
    return found


@cache
def _process() -> ProcessPoolExecutor:
    """Make a process of its own: KServe and Triton name messages alike, and one process cannot hold both."""
    return ProcessPoolExecutor(1, get_context("spawn"))


def _all_unknown(document: dict[str, Any]) -> list[str]:
    return list(_unknown(document, KSERVE[document["kind"]], document["kind"]))


def _unknown(value: Any, kind: str, where: str) -> Iterator[str]:
    """Say which fields of `value` a class of KServe does not have, and which it requires."""
    import kserve

    if (model := getattr(kserve, kind.removeprefix("list[").removesuffix("]"), None)) is None:
        return  # of Kubernetes
    for each in value if isinstance(value, list) else [value]:
        fields = {json_name: name for name, json_name in model.attribute_map.items()}
        yield from (f"{where}.{name} is no field of {kind}" for name in each.keys() - fields.keys())
        known = {name: item for name, item in each.items() if name in fields}
        try:
            model(**{fields[name]: item for name, item in known.items()})
        except ValueError as error:
            yield f"{where}: {error}"
        for name, item in known.items():
            yield from _unknown(item, model.openapi_types[fields[name]], f"{where}.{name}")
