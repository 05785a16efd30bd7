"""What every way to deploy promises of its pods: fields that there are, settings, probes, rights, ports and time."""

import json
import math
import re
from copy import deepcopy

import pytest
from kubernetes.utils.quantity import parse_quantity

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.process.flags import read_settings
from spikeserve.service.settings import ENVIRONMENT_PREFIX, Settings, with_protocols
from tests.deploy.schemas import faults
from tests.deploy.ways import ACCEPTED, DOCKERFILE, KSERVE, PORT, WAYS, way

EACH = pytest.mark.parametrize("name", WAYS)
PODS = pytest.mark.parametrize("name", [name for name in WAYS if name not in KSERVE])  # that are no serving runtime's
(USER,) = re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)


@EACH
def test_each_manifest_is_of_its_kind(name: str) -> None:
    assert way(name).keys() >= ({"ServingRuntime"} if name in KSERVE else {"Deployment", "Service"})
    for kind, each in way(name).items():
        if kind != "PodMonitor":  # no package that is small ships its schema
            assert faults(each) == [], kind


@pytest.mark.parametrize(
    ("name", "place", "count"),
    [("default", "container", 2), ("KServe", "container", 2), ("KServe", "InferenceService/spec/predictor/model", 1)],
)
def test_a_field_that_there_is_not_is_a_fault(name: str, place: str, count: int) -> None:
    wrong = deepcopy(way(name))
    wrong.at(place)["storageUrl"] = "v2"
    found = [fault for each in wrong.values() for fault in faults(each)]  # by each Kubernetes, and KServe's classes
    assert ["storageUrl" in fault for fault in found] == [True] * count


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
    # There is no flag for a repository's cache.
    assert environment.keys() <= with_protocols().model_fields.keys() | {"repository_cache"}
    assert len(environment) == len(runs["env"])
    cores = math.ceil(parse_quantity(limits["cpu"]))
    for setting, value in environment.items():
        if value != "/repository":
            text = value if value is not None else str(cores) if setting == "threads" else f"sha256:{'0' * 64}"
            monkeypatch.setenv(ENVIRONMENT_PREFIX + setting.upper(), text)
    settings = read_settings([each.replace("/mnt/models", str(PRETRAINED)) for each in runs.get("args", [])])
    assert settings.threads == cores
    assert settings.max_pending_bytes == parse_quantity(limits["memory"]) // 4
    assert settings.url == ACCEPTED.get(name, {}).get("values", {}).get("repository", {}).get("url")
    ports = {settings.port, dict(settings)["grpc_port"]} - {settings.port if name == "Knative, gRPC" else 0}
    assert {each["containerPort"] for each in runs["ports"]} == ports  # with Knative one alone, which is gRPC's
    assert settings.port == int(PORT)
    # An empty secret would stop the start, so that no pod is open where keys were meant; one that is not there is none.
    secrets = [each["valueFrom"]["secretKeyRef"] for each in runs["env"] if "secretKeyRef" in each.get("valueFrom", {})]
    optional = [("api-keys", name not in ("claim", "readme")), ("admin-keys", True)]  # those two require keys
    assert [(secret["key"], secret["optional"]) for secret in secrets] == ([] if name in KSERVE else optional)


@EACH
def test_probes_ask_what_is_live_and_what_is_ready(name: str) -> None:
    runs, there = way(name).container, way("kustomize, default").container
    for probe, path in (("startup", "/health/live"), ("readiness", "/health/ready"), ("liveness", "/health/live")):
        if (name, probe) != ("Knative, gRPC", "liveness"):  # which is a command
            assert runs[f"{probe}Probe"]["httpGet"] == {"path": path, "port": 8000 if name in KSERVE else "http"}
    for field in () if name in KSERVE else ("readinessProbe", "livenessProbe", "lifecycle"):
        assert runs[field] == there[field]  # whatever the values of the chart


@PODS
def test_selectors_match_the_pods_ports_have_their_names_and_every_target_is_there(name: str) -> None:
    made, deployment = way(name), way(name)["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = re.findall(r'"(?:matchLabels|selector)": (\{[^{}]+\})', json.dumps(made))
    assert all(json.loads(selector).items() <= labels.items() for selector in selectors)
    # Each manifest has one, and the Deployment another, by which its pods are spread.
    assert len(selectors) == len(made.keys() - {"HorizontalPodAutoscaler", "Pod"}) + 1
    assert all(each["metadata"]["name"].startswith(deployment["metadata"]["name"]) for each in made.values())
    ports = {port["name"] for port in made.container["ports"]}
    services = [each["spec"] for kind, each in made.items() if kind.endswith("Service")]
    assert {port["targetPort"] for service in services for port in service["ports"]} == ports
    if "NetworkPolicy" in made:
        (allowed,) = made.at("NetworkPolicy/spec/ingress")
        assert {port["port"] for port in allowed["ports"]} == ports
    if "HorizontalPodAutoscaler" in made:
        target = {field: deployment[field] for field in ("apiVersion", "kind")}
        target["name"] = deployment["metadata"]["name"]
        assert made.at("HorizontalPodAutoscaler/spec/scaleTargetRef") == target


@PODS
def test_a_pod_has_the_time_to_drain_and_to_start(name: str) -> None:
    drain = float(way(name).environment.get("shutdown_seconds", Settings.model_fields["shutdown_seconds"].default))
    wait, probe = way(name).at("container/lifecycle/preStop/sleep/seconds"), way(name).at("container/startupProbe")
    assert way(name).pod["terminationGracePeriodSeconds"] == drain + 20 > wait + drain + 1  # a second to end runs
    # Before a repository elsewhere is copied, for ten minutes at most, a server answers nothing, not even /health/live.
    elsewhere = "repository_cache" in way(name).environment
    assert probe["periodSeconds"] * probe["failureThreshold"] == (660 if elsewhere else 120)
    assert f"SPIKESERVE_DRAIN_SECONDS={wait} " in DOCKERFILE  # for Knative, which takes no hook
