"""What every way to deploy promises of its pods: fields that there are, settings, probes, rights, ports and time."""

import math
import re

import pytest
from fastapi.routing import APIRoute
from kubernetes.utils.quantity import parse_quantity

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.app import create_app
from spikeserve.service.process.flags import read_settings
from spikeserve.service.settings import ENVIRONMENT_PREFIX, Settings, with_protocols
from tests.deploy.schemas import faults
from tests.deploy.ways import ACCEPTED, KSERVE, WAYS, Way, read, way
from tests.pages import ROOT

EACH = pytest.mark.parametrize("name", WAYS)
PODS = pytest.mark.parametrize("name", [name for name in WAYS if name not in KSERVE])  # that are no serving runtime's
DOCKERFILE = (ROOT / "Dockerfile").read_text()
(USER,) = re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)


@EACH
def test_each_manifest_is_of_its_kind(name: str) -> None:
    assert way(name).documents.keys() >= ({"ServingRuntime"} if name in KSERVE else {"Deployment", "Service"})
    for kind, each in way(name).documents.items():
        if kind != "PodMonitor":  # no package that is small ships its schema
            assert faults(each) == [], kind


POD = "spec/template/spec/containers/0"


@pytest.mark.parametrize(
    ("path", "where", "field", "value", "count"),
    [
        ("kubernetes/deployment.yaml", POD, "imagePolicy", "Always", 2),
        ("kubernetes/deployment.yaml", POD, "image", 1, 2),
        ("kserve/runtime.yaml", "spec/containers/0", "readinessProbe", {"periodSeconds": "5"}, 2),
        ("kserve/runtime.yaml", "spec", "protocols", "v2", 1),
        ("kserve/inference-service.yaml", "spec/predictor/model", "storageUrl", "v2", 1),
    ],
)
def test_what_is_wrong_in_a_manifest_is_found(path: str, where: str, field: str, value: object, count: int) -> None:
    document = read(path)
    Way(document).at(where)[field] = value
    found = faults(document)  # by each version of Kubernetes, and by KServe's classes
    assert [field in fault for fault in found] == [True] * count


@EACH
def test_nothing_may_become_root_or_write_but_bounded_folders(name: str) -> None:
    pod, runs = way(name).pod, way(name).container
    assert (pod.get("securityContext", {}) | runs["securityContext"]).items() >= {
        "runAsNonRoot": True,
        "runAsUser": int(USER),
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }.items()
    assert runs["resources"].keys() == {"requests", "limits"}
    writable = {mount["name"]: mount["mountPath"] for mount in runs["volumeMounts"] if not mount.get("readOnly")}
    assert writable.items() <= {"tmp": "/tmp", "copies": "/copies"}.items()  # noqa: S108
    assert all(volume.get("emptyDir", {"sizeLimit": "of a claim"})["sizeLimit"] for volume in pod["volumes"])
    # Kubernetes gives every pod <SERVICE>_PORT=tcp://… for each Service: ours would be SPIKESERVE_PORT.
    assert name in KSERVE or pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False


@EACH
def test_settings_are_settings_and_follow_the_limits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, environment, limits = way(name).container, way(name).environment, way(name).at("container/resources/limits")
    known = with_protocols().model_fields.keys() | {"repository_cache"}  # which a variable alone says
    assert environment.keys() <= known
    assert len(environment) == len(runs["env"])
    cores = math.ceil(parse_quantity(limits["cpu"]))
    for setting, value in environment.items():
        if value != "/repository":
            text = value if value is not None else str(cores) if setting == "threads" else f"sha256:{'0' * 64}"
            monkeypatch.setenv(ENVIRONMENT_PREFIX + setting.upper(), text)
    settings = read_settings([each.replace("/mnt/models", str(PRETRAINED)) for each in runs.get("args", [])])
    assert settings.threads == cores
    assert settings.max_pending_bytes == parse_quantity(limits["memory"]) // 4
    assert settings.url == ACCEPTED.get(name, {}).get("repository", {}).get("url")
    # An empty secret would stop the start, so that no pod is open where keys were meant; one that is not there is none.
    secrets = [each["valueFrom"]["secretKeyRef"] for each in runs["env"] if "secretKeyRef" in each.get("valueFrom", {})]
    optional = [("api-keys", name not in ("claim", "readme")), ("admin-keys", True)]  # those two require keys
    assert [(secret["key"], secret["optional"]) for secret in secrets] == ([] if name in KSERVE else optional)


@EACH
def test_probes_ask_paths_and_ports_that_there_are(name: str) -> None:
    app = create_app(Settings(repository=PRETRAINED))
    routes = {route.path for route in app.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())}
    runs, there = way(name).container, way("kubernetes").container
    probes = {each: runs[f"{each}Probe"]["httpGet"] for each in ("startup", "readiness")}
    if name != "Knative, gRPC":  # whose liveness probe is a command
        probes["liveness"] = runs["livenessProbe"]["httpGet"]
    for each, probe in probes.items():
        assert probe["path"] == ("/health/ready" if each == "readiness" else "/health/live") in routes
        assert probe["port"] == (8000 if name in KSERVE else "http")
    for field in () if name in KSERVE else ("readinessProbe", "livenessProbe", "lifecycle"):
        assert runs[field] == there[field]  # whatever the values of the chart


@PODS
def test_selectors_match_the_pods_ports_have_their_names_and_every_target_is_there(name: str) -> None:
    made, deployment = way(name).documents, way(name).documents["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    services = [each for kind, each in made.items() if kind in ("Service", "headless Service")]
    selectors = [service["spec"]["selector"] for service in services]
    selectors += [each["labelSelector"]["matchLabels"] for each in way(name).pod["topologySpreadConstraints"]]
    selecting = {"Deployment", "PodDisruptionBudget", "PodMonitor"} & made.keys()
    selectors += [made[kind]["spec"]["selector"]["matchLabels"] for kind in selecting]
    ports = {port["name"] for port in way(name).container["ports"]}
    assert {port["targetPort"] for service in services for port in service["spec"]["ports"]} == ports
    if "NetworkPolicy" in made:
        selectors.append(made["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])
        (allowed,) = made["NetworkPolicy"]["spec"]["ingress"]
        assert {port["port"] for port in allowed["ports"]} == ports
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    if "HorizontalPodAutoscaler" in made:
        target = made["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        there = {field: deployment[field] for field in ("apiVersion", "kind")}
        assert target == there | {"name": deployment["metadata"]["name"]}


@PODS
def test_a_pod_has_the_time_to_drain_and_to_start(name: str) -> None:
    drain = float(way(name).environment.get("shutdown_seconds", Settings.model_fields["shutdown_seconds"].default))
    wait, probe = way(name).at("container/lifecycle/preStop/sleep/seconds"), way(name).at("container/startupProbe")
    assert way(name).pod["terminationGracePeriodSeconds"] == drain + 20 > wait + drain + 1  # a second to end runs
    # Before a repository elsewhere is copied, for ten minutes at most, a server answers nothing, not even /health/live.
    elsewhere = "repository_cache" in way(name).environment
    assert probe["periodSeconds"] * probe["failureThreshold"] == (660 if elsewhere else 120)
    assert f"SPIKESERVE_DRAIN_SECONDS={wait} " in DOCKERFILE  # for Knative, which takes no hook
