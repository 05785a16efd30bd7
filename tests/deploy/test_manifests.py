"""The manifests of kustomize, KServe and compose fit each other, the image, and the service that they run.

`test_ways.py` has what each of them promises as every way to deploy does.
"""

import json
import re
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest

from spikeserve.models.version import VERSION
from spikeserve.service.process.flags import read_settings
from spikeserve.service.settings import Settings
from tests.deploy.schemas import faults
from tests.deploy.ways import DEPLOY, IMAGE, OPTIONAL, README, RESOURCES, Way, built, by_kind, read, way
from tests.pages import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES: dict[str, Any] = read("compose/compose.yaml")["services"]
COMPOSE = SERVICES["spikeserve"]


def test_kustomize_applies_every_manifest_but_those_that_need_more_than_kubernetes() -> None:
    applied = read("kubernetes/kustomization.yaml")["resources"]
    assert sorted([*applied, *OPTIONAL]) == RESOURCES
    made, there = by_kind(built(IMAGE)), by_kind(read(f"kubernetes/{name}") for name in applied)
    there.container["image"] = IMAGE.rpartition("=")[2]  # which the page's command has given it
    assert made == there


def test_ports_are_the_images() -> None:
    (exposed,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert f"SPIKESERVE_PORT={exposed}" in DOCKERFILE
    assert int(exposed) == Settings.model_fields["port"].default
    kubernetes, kserve = way("kubernetes"), way("KServe")
    (scraped,) = kubernetes.at("PodMonitor/spec/podMetricsEndpoints")
    (scrape,) = read("compose/prometheus.yml")["scrape_configs"]
    assert kubernetes.at("container/ports") == [{"name": "http", "containerPort": int(exposed)}]
    assert kubernetes.at("Deployment/spec/template/metadata/annotations")["prometheus.io/port"] == exposed
    assert (scraped["port"], scraped["path"]) == ("http", scrape["metrics_path"])
    assert kserve.at("workload/spec/annotations")["prometheus.kserve.io/port"] == exposed
    assert [port["containerPort"] for port in kserve.at("container/ports")] == [int(exposed)]
    assert f"--port={exposed}" in kserve.at("container/args")
    assert COMPOSE["ports"] == [f"127.0.0.1:{exposed}:{exposed}"]
    assert scrape["static_configs"] == [{"targets": [f"spikeserve:{exposed}"]}]


def test_compose_may_do_no_more_than_pods_and_is_reached_from_here_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert COMPOSE["read_only"] is True
    assert [mount.split(":")[0] for mount in COMPOSE["tmpfs"]] == ["/tmp"]  # noqa: S108
    for service in SERVICES.values():
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert service["mem_limit"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])  # which is no image that is whatever is the latest
    for name, value in COMPOSE["environment"].items():
        monkeypatch.setenv(name, value)
    settings = read_settings([])
    assert settings.threads == COMPOSE["cpus"]
    assert (COMPOSE["mem_limit"], settings.max_pending_bytes) == ("1g", 2**28)
    assert int(COMPOSE["stop_grace_period"].rstrip("s")) > settings.shutdown_seconds


def test_all_name_the_image_of_this_version_that_the_readme_says_how_to_build() -> None:
    (image,), (name,) = (set(re.findall(r"docker build -t (\S+) \.", text)) for text in (README, DOCKERFILE))
    assert image == f"{name}:{VERSION}"
    (changed,) = read("kubernetes/kustomization.yaml")["images"]
    assert (changed["name"], changed["newTag"], way("kubernetes").container["image"]) == (name, VERSION, name)
    assert way("KServe").container["image"] == COMPOSE["image"] == image
    assert (DEPLOY / "compose" / COMPOSE["build"]["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_the_queues_target_is_half_a_second_of_waiting_with_the_threads_that_a_pod_has() -> None:
    by_queue, by_cpu = (read(f"kubernetes/{name}.yaml")["spec"] for name in ("autoscaler-queue", "autoscaler"))
    assert faults(read("kubernetes/autoscaler-queue.yaml")) == []
    (target,) = [each["pods"]["target"] for each in by_queue["metrics"] if "pods" in each]
    threads = int(way("kubernetes").at("container/resources/limits/cpu"))
    assert (target["type"], float(target["averageValue"])) == ("AverageValue", 0.5 * threads)
    assert [each for each in by_queue["metrics"] if "resource" in each] == by_cpu["metrics"]
    assert by_queue | {"metrics": by_cpu["metrics"]} == by_cpu


def test_the_runtime_is_what_kserve_and_knative_take_by_default_and_the_inference_service_fits_it() -> None:
    kserve = way("KServe")
    runtime, model = kserve.workload, kserve.at("InferenceService/spec/predictor/model")
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert kserve.container["name"] == "kserve-container"
    # Without features that are off in Knative: no hook, and no value from the pod's own fields.
    assert "lifecycle" not in kserve.container
    assert None not in kserve.environment.values()
    # Knative refuses another grace period than its own, of 300 seconds; without Knative it is Kubernetes' 30.
    assert "terminationGracePeriodSeconds" not in kserve.at("InferenceService/spec/predictor")
    assert Settings.model_fields["shutdown_seconds"].default + 1 < 30


@pytest.mark.parametrize("name", ["KServe, gRPC", "Knative, gRPC"])
def test_a_patch_for_grpc_fits_the_runtime_and_its_port_is_the_servers(name: str) -> None:
    *others, grpc = way(name).container["ports"]
    assert way(name).at("workload/spec/protocolVersions")[-1] == "grpc-v2"
    assert grpc["name"] == "h2c"
    assert f"--grpc-port={grpc['containerPort']}" in way(name).container["args"]
    assert [port["containerPort"] for port in others] == ([] if "Knative" in name else [8000])
    assert {f"deploy/kserve/{file}" for file in ("grpc.yaml", "grpc-knative.yaml") if file not in README} == set()


def test_with_knative_no_probe_over_http_asks_the_port_for_grpc() -> None:
    # A liveness probe by httpGet is sent to the container's one port, whatever it says. The others go where they say.
    liveness = deepcopy(way("Knative, gRPC").container["livenessProbe"])
    command, path = liveness.pop("exec")["command"], way("KServe").at("container/livenessProbe/httpGet/path")
    assert liveness.items() < way("KServe").container["livenessProbe"].items()
    assert f"http://127.0.0.1:8000{path}" in command[-1]


def test_compose_mounts_files_that_there_are_and_grafana_asks_its_prometheus() -> None:
    volumes = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", ())]
    mounted = {there: (DEPLOY / "compose" / place).resolve() for place, there, *_ in volumes if place.startswith(".")}
    assert [place for place in mounted.values() if not place.exists()] == []
    assert all(rest == ["ro"] for place, _, *rest in volumes if place.startswith("."))
    (rules,) = read("compose/prometheus.yml")["rule_files"]
    assert mounted[rules] == DEPLOY / "prometheus" / "rules.yml"
    (source,) = read("compose/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("compose/grafana/provisioning/dashboards/spikeserve.yaml")["providers"]
    assert mounted[provider["options"]["path"]] == DEPLOY / "grafana"


def test_the_patch_in_the_readme_is_one() -> None:
    (patch,) = re.findall(r"--patch '(.*?)'", README, re.DOTALL)
    parsed = json.loads(patch)["spec"]["template"]["spec"]
    deployment = Way({"Deployment": read("kubernetes/deployment.yaml")})
    (patched,) = parsed["containers"]
    assert patched["name"] == deployment.container["name"]
    deployment.pod["volumes"] += parsed["volumes"]
    for field in ("env", "volumeMounts"):
        deployment.container[field] += patched[field]
    assert faults(deployment.workload) == []


def test_compose_is_what_its_schema_says() -> None:
    path = str(DEPLOY / "compose" / "compose.yaml")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
