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
RESOURCES = sorted({path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"})
OPTIONAL = {"autoscaler-queue.yaml", "monitor.yaml"}  # applied by hand, where a cluster has what they need
KSERVE: dict[str, list[str]] = {"KServe": [], "KServe, gRPC": ["grpc.yaml"], "Knative, gRPC": ["grpc-knative.yaml"]}
VALUES = yaml.safe_load((Path(__file__).parent / "values.yml").read_text())  # of the chart
ACCEPTED: dict[str, dict[str, Any]] = {
    **VALUES["accepted"],
    "readme": yaml.safe_load(block_with(README, "yaml", "s3://")),
}
REFUSED: list[dict[str, Any]] = VALUES["refused"]
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
        """Return the part at a path such as `Service/spec/ports/0`; the first word may be a property of the way."""
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


@cache
def rendered() -> dict[Any, Any]:
    """What Helm says of the chart: its lint, and what each of the values renders to or why it is refused."""
    if find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed here")
    asked: dict[Any, Any] = {**ACCEPTED, **dict(enumerate(each["values"] for each in REFUSED))}
    lines = [{"name": "spikeserve", "values": values} for values in asked.values()]
    lines += [{"name": name, "values": {}} for name in ("prod", "a.b")]
    command, text = [sys.executable, "-m", "tests.deploy.helm", str(CHART)], "\n".join(map(json.dumps, lines))
    ran = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return dict(zip(["lint", *asked, "prod", "a.b"], map(json.loads, ran.stdout.splitlines()), strict=True))
