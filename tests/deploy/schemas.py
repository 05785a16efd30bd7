"""Whether a manifest is of its kind: by the schemas of Kubernetes' versions, and by the classes of KServe's client."""

from typing import Any

import kubernetes_validate

from tests.deploy.ways import apart

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-a-runtime"}}
KSERVE = {"ServingRuntime": "V1alpha1ServingRuntime", "InferenceService": "V1beta1InferenceService"}


def faults(document: dict[str, Any]) -> list[str]:
    """Say what is wrong with a manifest, such as a field that its kind does not have; of Kubernetes the first fault."""
    if kind := KSERVE.get(document["kind"]):
        pod = {name: document["spec"][name] for name in ("containers", "volumes") if name in document["spec"]}
        found = apart().submit(refused, document, kind).result()
        return [*found, *(faults({**POD, "spec": pod}) if pod else ())]
    found = []
    for version in ("1.32", kubernetes_validate.latest_version()):  # the oldest of deploy/README.md, and the newest
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(each) for each in error.absolute_path)
            found.append(f"{where} in {version}: {error.message}")
    return found


def refused(value: Any, kind: str) -> list[str]:
    """Say what a class of KServe refuses in `value` and below: a field that it does not have, or lacks."""
    import kserve

    if (model := getattr(kserve, kind.removeprefix("list[").removesuffix("]"), None)) is None:
        return []  # of Kubernetes
    found, fields = [], {json_name: name for name, json_name in model.attribute_map.items()}
    for each in value if isinstance(value, list) else [value]:
        try:
            model(**{fields.get(name, f"no field {name}"): item for name, item in each.items()})
        except (TypeError, ValueError) as error:
            found.append(f"{kind}: {error}")
        for name in each.keys() & fields.keys():
            found += refused(each[name], model.openapi_types[fields[name]])
    return found
