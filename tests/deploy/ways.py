"""Each way to deploy as the manifests that it makes: kustomize, the Helm chart with many values, and KServe."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from spikeserve.service.settings import ENVIRONMENT_PREFIX
from tests.pages import ROOT, block_with

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "spikeserve"
README = (DEPLOY / "README.md").read_text()
(IMAGE,) = set(re.findall(r"kustomize edit set image [^\s)]+", README))
(GRPC,) = set(re.findall(r"kustomize edit add component [^\s)]+", README))
DIGEST = f"sha256:{'0' * 64}"
RESOURCES = sorted({path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"})
OPTIONAL = {"autoscaler-queue.yaml", "monitor.yaml"}  # applied by hand, where a cluster has what they need
KSERVE: dict[str, list[str]] = {"KServe": [], "KServe, gRPC": ["grpc.yaml"], "Knative, gRPC": ["grpc-knative.yaml"]}
PATIENT = {"SHUTDOWN_SECONDS": "120", "PUBLIC_METRICS": "false"}

# Values of the chart.
ACCEPTED: dict[str, dict[str, Any]] = {
    "default": {},
    "fixed": {"replicas": 3, "autoscaling": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "queue": {"autoscaling": {"queuedSeconds": 1}},
    "claim": {"repository": {"claim": "models", "pollSeconds": 10}, "keys": {"secret": "mine", "required": True}},
    "url": {
        "image": {"repository": "registry.example/spikeserve", "tag": "1.2", "pullSecrets": [{"name": "registry"}]},
        "repository": {"url": "s3://bucket/models", "pollSeconds": 0.5, "cacheSize": "10Gi"},
        "envFrom": [{"secretRef": {"name": "storage"}}], "serviceAccount": "reader",
    },
    "readme": yaml.safe_load(block_with(README, "yaml", "s3://")),
    "cache": {"repository": {"url": "s3://bucket/models", "cacheClaim": "copies"}},
    "large": {"resources": {"limits": {"cpu": 8, "memory": "1.5Gi", "example.com/device": 1}}},
    "patient": {
        "repository": {"url": "s3://bucket/models"}, "podAnnotations": {"prometheus.io/scrape": "false"},
        "env": [{"name": f"SPIKESERVE_{name}", "value": value} for name, value in PATIENT.items()],
    },
    "units": {
        "image": {"tag": "1.2@" + DIGEST},
        "resources": {"requests": {"cpu": "1500m", "memory": "500M"}, "limits": {"cpu": 1.5, "memory": "0.5T"}},
    },
    "sticky": {"sticky": {"seconds": 600}, "service": {"type": "LoadBalancer", "port": 8080, "annotations": {}}},
    "monitor": {"monitor": {"enabled": True, "interval": "30s"}},
    "grpc": {"grpc": {"enabled": True}},
    "grpc elsewhere": {"grpc": {"enabled": True, "port": 9000}, "sticky": {"seconds": 600}},
    "placed": {
        "podLabels": {"team": "a"}, "podAnnotations": {"note": "b"}, "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "only", "operator": "Exists"}], "affinity": {"podAntiAffinity": {}},
        "env": [{"name": "SPIKESERVE_MAX_QUEUE", "value": "64"}],
        "networkPolicy": {
            "from": [{"podSelector": {}}],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 4318}]}],
        },
    },
}  # fmt: skip
WAYS = ["kubernetes", "kubernetes, gRPC", *KSERVE, *ACCEPTED]


@dataclass(frozen=True)
class Way:
    """The manifests of a way, by their kind; a Service that has no address of its own is a headless one."""

    documents: dict[str, Any]

    @property
    def workload(self) -> dict[str, Any]:
        return self.documents.get("Deployment") or self.documents["ServingRuntime"]

    @property
    def pod(self) -> dict[str, Any]:
        return self.workload["spec"].get("template", self.workload)["spec"]

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.pod["containers"]
        return only

    @property
    def environment(self) -> dict[str, Any]:
        """The settings of the container, by their name, with None where Kubernetes fills the value in."""
        variables = self.container["env"]
        return {each["name"].removeprefix(ENVIRONMENT_PREFIX).lower(): each.get("value") for each in variables}

    def at(self, path: str) -> Any:
        """Return what stands at a path such as `Service/spec/ports/0`; the first word may be a property of the way."""
        first, *names = path.split("/")
        place: Any = self.documents[first] if first in self.documents else getattr(self, first)
        for name in names:
            place = place[int(name)] if isinstance(place, list) else place[name]
        return place


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / path).read_text())


def by_kind(documents: Iterable[dict[str, Any]]) -> Way:
    headless = {"clusterIP": "None"}
    return Way(
        {
            f"headless {each['kind']}" if headless.items() <= each.get("spec", {}).items() else each["kind"]: each
            for each in documents
        }
    )


@cache
def way(name: str) -> Way:
    """Return a way by its name; nobody changes it."""
    if name in KSERVE:
        return by_kind([patched(*KSERVE[name]), read("kserve/inference-service.yaml")])
    if name == "kubernetes":
        return by_kind(read(f"kubernetes/{each}") for each in RESOURCES if each != "autoscaler-queue.yaml")
    if name == "kubernetes, gRPC":
        return by_kind(built(GRPC))
    texts = {file: text for file, text in rendered()[name]["files"].items() if file.endswith(".yaml")}
    return by_kind(each for text in texts.values() for each in yaml.safe_load_all(text) if each)


def built(*commands: str) -> list[dict[str, Any]]:
    """Return kustomize's manifests for the folder, once the page's commands have changed a copy of it."""
    if shutil.which("kustomize") is None:
        pytest.skip("kustomize is not installed here: ./scripts/install-tools")
    with TemporaryDirectory() as folder:
        place = shutil.copytree(DEPLOY / "kubernetes", Path(folder) / "kubernetes")
        for command in (*commands, "kustomize build"):
            ran = subprocess.run(command.split(), cwd=place, check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(ran.stdout))


def patched(*names: str) -> dict[str, Any]:
    """Return the runtime for KServe with some of its patches, in which each path is there."""
    runtime = read("kserve/runtime.yaml")
    for change in (change for name in names for change in yaml.safe_load((DEPLOY / "kserve" / name).read_text())):
        path, _, last = change["path"].removeprefix("/").rpartition("/")
        place = Way(runtime).at(path)
        if change["op"] == "add":
            assert last == "-"
            place.append(change["value"])
        else:
            assert (change["op"], last in place) == ("replace", True)
            place[last] = change["value"]
    return runtime


# Values of the chart that are wrong, and what of the sentence says so.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replica": 3}, "additional properties 'replica' not allowed"),
    ({"replicas": "3"}, "at '/replicas': got string, want integer"),
    ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent'"),
    ({"image": {"tag": "latest"}}, "image: tag is latest, expected one that always names the same image"),
    ({"repository": {"url": "bucket"}}, "at '/repository/url': 'bucket' does not match pattern"),
    ({"repository": {"url": "s3://a", "claim": "b"}}, "repository: url and claim are both set, expected one of them"),
    ({"repository": {"cacheClaim": "b"}}, "repository: cacheClaim is set, which is for the copies"),
    ({"keys": {"secret": ""}}, "at '/keys/secret': '' does not match pattern"),
    ({"resources": {"limits": {"memory": "lots"}}}, "at '/resources/limits/memory': 'lots' does not match pattern"),
    ({"resources": {"limits": {"cpu": 0}}}, "at '/resources/limits/cpu': exclusiveMinimum: got 0, want 0"),
    ({"resources": {"limits": {"cpu": "0"}}}, "resources: limits.cpu is 0, expected more than 0 and at least requests"),
    ({"resources": {"limits": {"cpu": "900m"}}}, "limits.cpu is 900m, expected more than 0 and at least requests.cpu,"),
    ({"resources": {"limits": {"memory": "511Mi"}}}, "limits.memory is 511Mi, expected more than 0 and at least reque"),
    ({"resources": {"limits": {"cpus": 1}}}, "at '/resources/limits': additional properties 'cpus' not allowed"),
    ({"autoscaling": {"minReplicas": 20}}, "autoscaling: minReplicas is 20, expected at most maxReplicas, 10"),
    ({"service": {"port": 0}}, "at '/service/port': minimum: got 0, want 1"),
    ({"grpc": {"port": 443}}, "at '/grpc/port': minimum: got 443, want 1,024"),
    ({"grpc": {"enabled": True, "port": 8000}}, "grpc: port is 8000, expected one that is neither 8000"),
    (
        {"grpc": {"enabled": True, "port": 9000}, "service": {"port": 9000}},
        "grpc: port is 9000, expected one that is neither 8000, the pods' for HTTP, nor service.port, 9000",
    ),
    ({"env": [{"name": "SPIKESERVE_GRPC_PORT"}]}, "SPIKESERVE_GRPC_PORT is set, which the chart sets by the value grp"),
    ({"sticky": {"seconds": 86401}}, "at '/sticky/seconds': maximum: got 86,401, want 86,400"),
    ({"monitor": {"interval": "often"}}, "at '/monitor/interval': 'often' does not match pattern"),
    ({"podLabels": {"app.kubernetes.io/name": "a"}}, "podLabels: app.kubernetes.io/name is set, by which"),
    ({"env": [{"name": "A"}, {"name": "A"}]}, "env: A is set twice, expected once"),
    ({"env": [{"value": "1"}]}, "at '/env/0': missing property 'name'"),
    ({"env": [{"name": "SPIKESERVE_THREADS"}]}, "SPIKESERVE_THREADS is set, which the chart sets by the value resourc"),
]


@cache
def rendered() -> dict[Any, Any]:
    """What Helm says of the chart: its lint, and what each of the values renders to or why it is refused."""
    if find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed here")
    asked: dict[Any, Any] = {**ACCEPTED, **dict(enumerate(values for values, _ in REFUSED))}
    lines = [{"name": "spikeserve", "values": values} for values in asked.values()]
    lines += [{"name": name, "values": {}} for name in ("prod", "a.b")]
    command, text = [sys.executable, "-m", "tests.deploy.helm", str(CHART)], "\n".join(map(json.dumps, lines))
    ran = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return dict(zip(["lint", *asked, "prod", "a.b"], map(json.loads, ran.stdout.splitlines()), strict=True))
