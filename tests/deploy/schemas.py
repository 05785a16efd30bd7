"""Whether a manifest is of its kind: by the schemas of Kubernetes' versions, and by the classes of KServe's client."""

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate

VERSIONS = ("1.32", kubernetes_validate.latest_version())  # the oldest that deploy/README.md names, and the newest
KSERVE = {
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
PRIMITIVES: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}


def faults(document: dict[str, Any]) -> list[str]:
    """Say what is wrong with a manifest, such as a field that its kind does not have; of Kubernetes the first fault."""
    if name := KSERVE.get((document["apiVersion"], document["kind"])):
        return list(_faults(document, name, document["kind"]))
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(each) for each in error.absolute_path)
            found.append(f"{where} in {version}: {error.message}")
    return found


def _faults(value: Any, kind: str, where: str) -> Iterator[str]:
    """Say where `value` is not of `kind`, a type as the generated clients name it: fields, types, what is required."""
    if inner := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where} is no list"
            return
        for index, item in enumerate(value):
            yield from _faults(item, inner[1], f"{where}[{index}]")
    elif inner := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
        for name, item in value.items():
            yield from _faults(item, inner[1], f"{where}.{name}")
    elif kind in PRIMITIVES:
        if not isinstance(value, PRIMITIVES[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{where} is {value!r}, expected {kind}"
    elif model := _model(kind):
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        for json_name, item in value.items():
            if json_name not in names:
                yield f"{where}.{json_name} is no field of {kind}"
            else:
                yield from _faults(item, model.openapi_types[names[json_name]], f"{where}.{json_name}")
        try:
            model(**{names[json_name]: item for json_name, item in value.items() if json_name in names})
        except ValueError as error:
            yield f"{where}: {error}"
    else:
        assert kind in {"object", "datetime"}, kind  # anything


def _model(kind: str) -> Any:
    """Return the class of this name that either client has, or None."""
    import kserve  # here, since these two take seconds that other processes need not wait for
    from kubernetes import client

    return getattr(client, kind, None) or getattr(kserve, kind, None)
