"""The Helm chart renders to what deploy/kubernetes has, follows its values, and refuses those that are wrong.

`test_ways.py` has what it promises as every way to deploy does.
"""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.version import VERSION
from tests.deploy.ways import CHART, DEPLOY, GRPC, README, REFUSED, built, by_kind, read, rendered, way
from tests.plugins.grpc.rpc import address, serving_grpc
from tests.serving import Process

OF_THE_RELEASE = {f"app.kubernetes.io/{name}" for name in ("instance", "version", "managed-by")} | {"helm.sh/chart"}


def plain(value: Any) -> Any:
    """Return a manifest without the labels by which Helm knows a release."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in OF_THE_RELEASE}
    return [plain(item) for item in value] if isinstance(value, list) else value


def without_test(name: str) -> dict[str, Any]:
    """Return the manifests that some values make, without the pod of the chart's test."""
    return {kind: each for kind, each in way(name).documents.items() if kind != "Pod"}


def test_every_value_is_described_and_has_a_default() -> None:
    def check(schema: dict[str, Any], default: Any, where: str) -> None:
        for name, each in schema["properties"].items():
            assert each["description"].endswith("."), f"{where}{name}"
            if name != "global":
                assert name in default, f"{where}{name}"
                if "properties" in each:
                    check(each, default[name], f"{where}{name}.")
        assert set(default) <= set(schema["properties"])
        assert schema["additionalProperties"] is False

    schema = json.loads((CHART / "values.schema.json").read_text())
    check(schema, yaml.safe_load((CHART / "values.yaml").read_text()), "")


def test_the_readme_says_how_many_lines_each_way_has() -> None:
    counted = re.findall(r"^\| \[[^|]*\| some (\d+) \|", README, re.MULTILINE)
    for number, folder in zip(counted, ("kubernetes", "helm", "kserve", "compose"), strict=True):
        files = [path for path in (DEPLOY / folder).rglob("*") if path.is_file()]
        assert int(number) == pytest.approx(sum(len(path.read_text().splitlines()) for path in files), rel=0.1)


def test_the_chart_is_of_this_version_and_helm_lints_it_without_a_word() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    assert (rendered()["lint"]["messages"], rendered()["lint"]["errors"]) == ([], [])


@pytest.mark.parametrize(("name", "scaler"), [("default", "autoscaler"), ("queue", "autoscaler-queue")])
def test_it_renders_to_what_deploy_kubernetes_has(name: str, scaler: str) -> None:
    files = ("deployment", "service", scaler, "disruption", "network")
    there = by_kind(read(f"kubernetes/{file}.yaml") for file in files)
    there.container["image"] += f":{VERSION}"  # which kustomize adds
    assert plain(without_test(name)) == there.documents


def test_with_grpc_it_renders_to_what_kustomize_makes_of_the_component() -> None:
    assert plain(without_test("grpc")) == by_kind(built(GRPC)).documents
    assert "grpc" not in "".join(rendered()["default"]["files"].values()).lower()


ASKED = {"name": "grpc", "port": 9000, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
TMP = {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}
CLAIM = {"claimName": "models", "readOnly": True}

# Values, a place in what they make, and what stands there.
MADE: list[tuple[str, str, Any]] = [
    ("grpc elsewhere", "container/ports/1", {"name": "grpc", "containerPort": 9000}),
    ("grpc elsewhere", "environment/grpc_port", "9000"),
    ("grpc elsewhere", "Service/spec/ports/1", ASKED),
    ("grpc elsewhere", "headless Service/spec/ports", [ASKED]),
    ("grpc elsewhere", "headless Service/spec/clusterIP", "None"),
    ("monitor", "PodMonitor/spec/podMetricsEndpoints", [{"port": "http", "path": "/metrics", "interval": "30s"}]),
    ("readme", "environment/max_pending_bytes", str(2**29)),  # as the page says
    (
        "patient",
        "Deployment/spec/template/metadata/annotations",
        {"prometheus.io/scrape": "false", "prometheus.io/path": "/metrics", "prometheus.io/port": "8000"},
    ),
    ("patient", "environment/public_metrics", "false"),
    ("claim", "pod/volumes", [TMP, {"name": "repository", "persistentVolumeClaim": CLAIM}]),
    ("claim", "environment/repository", "/repository"),
    ("claim", "environment/poll_seconds", "10"),
    ("claim", "container/env/2/valueFrom/secretKeyRef/name", "mine"),
    ("url", "pod/volumes", [TMP, {"name": "copies", "emptyDir": {"sizeLimit": "10Gi"}}]),
    ("cache", "pod/volumes", [TMP, {"name": "copies", "persistentVolumeClaim": {"claimName": "copies"}}]),
    ("url", "environment/repository_cache", "/copies"),
    *(("url", f"NetworkPolicy/spec/egress/0/ports/{index}/port", port) for index, port in enumerate((53, 53, 443))),
    ("sticky", "Service/spec/sessionAffinity", "ClientIP"),
    ("sticky", "Service/spec/sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 600}}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "expected"), MADE)
def test_what_it_makes_follows_the_values(name: str, path: str, expected: Any) -> None:
    assert way(name).at(path) == expected


def test_what_is_turned_off_or_not_asked_for_is_not_made() -> None:
    assert without_test("fixed").keys() == {"Deployment", "Service", "PodDisruptionBudget"}
    assert "annotations" not in way("monitor").at("Deployment/spec/template/metadata")  # a monitor takes their place
    assert "sessionAffinity" not in way("default").at("Service/spec")


def test_its_test_asks_the_service_and_is_none_of_its_pods() -> None:
    made, pod = way("sticky"), way("sticky").documents["Pod"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert made.container["image"] == pod["spec"]["containers"][0]["image"]
    assert pod["spec"]["containers"][0]["command"][-1] == f"http://{made.at('Service/metadata/name')}:8080/health/ready"
    assert not made.at("Service/spec/selector").items() <= pod["metadata"]["labels"].items()


def test_its_test_and_knatives_probe_pass_where_the_server_is_ready_and_fail_where_there_is_none() -> None:
    over_http, over_grpc = (each["command"][:-1] for each in way("grpc").at("Pod/spec/containers"))
    *probe, program = way("Knative, gRPC").at("container/livenessProbe/exec/command")
    assert over_http[0] == over_grpc[0] == probe[0] == "python"

    def asked(service: Process) -> list[int]:
        commands = [[*over_http, f"{service.url}/health/ready"], [*over_grpc, address(service)]]
        commands.append([*probe, program.replace("http://127.0.0.1:8000", service.url)])
        ran = [subprocess.run([sys.executable, *each[1:]], capture_output=True, check=False) for each in commands]
        return [each.returncode for each in ran]

    with serving_grpc(PRETRAINED, "--engine", "reference", ready=2) as service:
        assert asked(service) == [0, 0, 0]
        assert service.stop() == 0
    assert asked(service) == [1, 1, 1]


def test_releases_have_names_and_selectors_of_their_own() -> None:
    made = way("prod")
    assert made.at("Service/spec/selector")["app.kubernetes.io/instance"] == "prod"
    assert {each["metadata"]["name"] for kind, each in made.documents.items() if kind != "Pod"} == {"prod-spikeserve"}
    assert made.at("HorizontalPodAutoscaler/spec/scaleTargetRef/name") == "prod-spikeserve"
    assert way("a.b").at("Service/metadata/name") == "a-b-spikeserve"  # a Service's has no dots


def test_the_notes_say_where_the_models_are_and_what_is_open() -> None:
    notes = {name: rendered()[name]["files"]["templates/NOTES.txt"] for name in ("default", "url", "claim", "grpc")}
    for name, place in (("default", "its image"), ("url", "s3://bucket/models"), ("claim", "the volume claim models")):
        assert notes[name].startswith(f"spikeserve serves the models of {place}.")
    assert "asks for no key" in notes["default"]
    assert "asks for no key" not in notes["claim"]
    assert "spikeserve-headless.default:8001 " in notes["grpc"]
    assert f"spikeserve:{VERSION} has to be built with GRPC=1." in notes["grpc"]


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=[each["sentence"][:40] for each in REFUSED])
def test_values_that_are_wrong_are_refused_by_a_sentence(index: int) -> None:
    assert REFUSED[index]["sentence"] in rendered()[index]["error"]
    assert not re.search(r"nil pointer|interface conversion", rendered()[index]["error"])
