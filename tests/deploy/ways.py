"""Each way to deploy as the manifests that it makes: kustomize, the Helm chart with many values, and KServe."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from spikeserve.service.settings import ENVIRONMENT_PREFIX
from tests.pages import ROOT, block_with

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "spikeserve"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
(PORT,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
README = (DEPLOY / "README.md").read_text()
(IMAGE,) = set(re.findall(r"kustomize edit set image [^\s)]+", README))
(GRPC,) = set(re.findall(r"kustomize edit add component [^\s)]+", README))
(PATCH,) = re.findall(r"kubectl patch deployment spikeserve --patch '(.*?)'", README, re.DOTALL)
VOLUME = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "spikeserve"}} | json.loads(PATCH)
ADD = "kustomize edit add"
# By the name of a way, the commands that change a copy of its folder before kustomize builds it.
KUBERNETES = {
    "kustomize, default": [],
    "kustomize, grpc": [GRPC],
    "kustomize, queue": ["kustomize edit remove resource autoscaler.yaml", f"{ADD} resource autoscaler-queue.yaml"],
    "kustomize, more": [IMAGE, f"{ADD} resource monitor.yaml", f"{ADD} patch --patch '{json.dumps(VOLUME)}'"],
}
TAKEN = "kustomize create --resources runtime.yaml,inference-service.yaml"
KSERVE = {
    "KServe": [TAKEN],
    "KServe, gRPC": [TAKEN, f"{ADD} patch --kind ServingRuntime --path grpc.yaml"],
    "Knative, gRPC": [TAKEN, f"{ADD} patch --kind ServingRuntime --path grpc-knative.yaml"],
}
VALUES = yaml.safe_load((Path(__file__).parent / "values.yml").read_text())  # of the chart
ACCEPTED: dict[str, dict[str, Any]] = VALUES["accepted"]
ACCEPTED["readme"]["values"] = yaml.safe_load(block_with(README, "yaml", "s3://"))
REFUSED: list[dict[str, Any]] = VALUES["refused"]
WAYS = [*KUBERNETES, *KSERVE, *ACCEPTED]


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / path).read_text())


class Way(dict[str, Any]):
    """The manifests of a way, by their kind; a Service that has no address of its own is a headless one."""

    @property
    def workload(self) -> dict[str, Any]:
        return self.get("Deployment") or self["ServingRuntime"]

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
        """Return the part at a path such as `Service/spec/ports/0`, or None; the first word may be a property."""
        first, *names = path.split("/")
        place: Any = self.get(first) or getattr(self, first, None)
        for name in names:
            place = place[int(name)] if isinstance(place, list) else place.get(name)
        return place


@cache
def way(name: str) -> Way:
    """Return a way by its name; nobody changes it."""
    found = Way()
    for each in made(name):
        headless = "headless " if each.get("spec", {}).get("clusterIP") == "None" else ""
        found[headless + each["kind"]] = each
    return found


def made(name: str) -> Iterable[dict[str, Any]]:
    """Return the manifests of a way."""
    if name in ACCEPTED:
        texts = "\n---\n".join(text for file, text in rendered()[name].items() if file.endswith(".yaml"))
        return filter(None, yaml.safe_load_all(texts))
    if shutil.which("kustomize") is None:
        pytest.skip("kustomize is not installed here: ./scripts/install-tools")
    with TemporaryDirectory() as folder:
        place = shutil.copytree(DEPLOY / ("kserve" if name in KSERVE else "kubernetes"), Path(folder) / "copy")
        for command in (*(KUBERNETES | KSERVE)[name], "kustomize build"):
            ran = subprocess.run(shlex.split(command), cwd=place, check=True, stdout=subprocess.PIPE)
    return yaml.safe_load_all(ran.stdout)


@cache
def apart() -> ProcessPoolExecutor:
    """Make a process of its own: for Helm, a program of Go with its own signal handlers, and for KServe's client.

    KServe and Triton name messages alike, and one process cannot hold both.
    """
    return ProcessPoolExecutor(1, get_context("spawn"))


@cache
def rendered() -> dict[Any, Any]:
    """What Helm says of the chart: its lint, and what each of the values renders to or why it is refused."""
    if find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed here")
    asked: dict[Any, dict[str, Any]] = {**ACCEPTED, **dict(enumerate(REFUSED))}
    releases = [(each.get("release", "spikeserve"), each.get("values", {})) for each in asked.values()]
    return dict(zip(["lint", *asked], apart().submit(helm, releases).result(), strict=True))


def helm(releases: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Return Helm's lint, and for each release, a name and values, the text of each template or Helm's error."""
    import helm_python

    chart, found = helm_python.Chart.load(str(CHART)), [helm_python.lint(str(CHART), strict=True)]
    for name, values in releases:
        try:
            found.append({path.split("/", 1)[1]: text for path, text in chart.render(values, name=name).items()})
        except helm_python.HelmError as error:
            found.append(str(error))
    return found
