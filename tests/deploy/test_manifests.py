"""The manifests are what Kubernetes and KServe take, fit each other, and fit the service that they run."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.version import VERSION
from spikeserve.service.app import create_app
from spikeserve.service.process.flags import read_settings
from spikeserve.service.settings import ENVIRONMENT_PREFIX, Settings
from tests.deploy.schemas import VERSIONS, faults
from tests.serving import running

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()

OPTIONAL = {"autoscaler-queue.yaml", "monitor.yaml"}  # applied by hand, where a cluster has what they need
UNCHECKED = {"kustomization.yaml", "monitor.yaml"}  # no package that is small ships their schemas
KUBERNETES = sorted({path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - UNCHECKED)
KSERVE = ["runtime.yaml", "inference-service.yaml"]
DIGEST = f"sha256:{'0' * 64}"
README = (DEPLOY / "README.md").read_text()
(IMAGE,) = set(re.findall(r"kustomize edit set image [^\s)]+", README))
(GRPC,) = set(re.findall(r"kustomize edit add component [^\s)]+", README))


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / path).read_text())


def by_kind(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return manifests by their kind, and a Service that has no address of its own as a headless one."""
    headless = {"clusterIP": "None"}
    return {
        f"headless {each['kind']}" if headless.items() <= each.get("spec", {}).items() else each["kind"]: each
        for each in documents
    }


def built(folder: Path, *commands: str) -> list[dict[str, Any]]:
    """Return kustomize's manifests for the folder, once the page's commands have changed a copy of it."""
    program = shutil.which("kustomize")
    if program is None:
        pytest.skip("kustomize is not installed here: ./scripts/install-tools")
    shutil.copytree(DEPLOY / "kubernetes", folder / "kubernetes")
    for command in (*commands, "kustomize build"):
        ran = subprocess.run(command.split(), cwd=folder / "kubernetes", check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(ran.stdout))


@pytest.mark.parametrize(
    "path", [*(f"kubernetes/{name}" for name in KUBERNETES), *(f"kserve/{name}" for name in KSERVE)]
)
def test_a_manifest_is_of_its_kind(path: str) -> None:
    assert faults(read(path)) == []


def test_what_is_wrong_is_found() -> None:
    wrong: list[dict[str, Any]] = [{"imagePolicy": "Always"}, {"image": 1}, {"readinessProbe": {"periodSeconds": "5"}}]
    for path, each in product(("kubernetes/deployment.yaml", "kserve/runtime.yaml"), wrong):
        document = read(path)
        of_the_pod(document)["containers"][0] |= each
        assert next(iter(each)) in "\n".join(faults(document))
    document = read("kubernetes/service.yaml")
    document["spec"]["ports"][0]["appProtocol"] = 2
    assert [fault.split(":")[0] for fault in faults(document)] == [
        f"spec.ports.0.appProtocol in {version}" for version in VERSIONS
    ]


def of_the_pod(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec["template"]["spec"] if document["kind"] == "Deployment" else spec


def container(path: str) -> dict[str, Any]:
    document = read(path)
    (only,) = of_the_pod(document)["containers"]
    return only


BOTH = pytest.mark.parametrize("path", ["kubernetes/deployment.yaml", "kserve/runtime.yaml"])


def test_kustomize_applies_every_manifest_but_those_that_need_more_than_kubernetes() -> None:
    kustomization = read("kubernetes/kustomization.yaml")
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert there - set(kustomization["resources"]) == OPTIONAL
    assert set(kustomization["resources"]) <= there
    assert {image["name"] for image in kustomization["images"]} == {container("kubernetes/deployment.yaml")["image"]}


def test_kustomize_gives_the_manifests_the_image_that_it_is_told(tmp_path: Path) -> None:
    made = by_kind(built(tmp_path, IMAGE))
    assert of_the_pod(made["Deployment"])["containers"][0].pop("image") == IMAGE.rpartition("=")[2]
    for name in read("kubernetes/kustomization.yaml")["resources"]:
        there = read(f"kubernetes/{name}")
        if there["kind"] == "Deployment":
            del of_the_pod(there)["containers"][0]["image"]
        assert made.pop(there["kind"]) == there
    assert made == {}


def test_the_component_adds_grpc_and_changes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    made, without = built(tmp_path, GRPC), by_kind(built(tmp_path / "without"))
    assert [fault for each in made for fault in faults(each)] == []
    with_it = by_kind(made)
    headless = with_it.pop("headless Service")["spec"]
    assert headless["selector"] == with_it["Service"]["spec"]["selector"]
    runs = of_the_pod(with_it["Deployment"])["containers"][0]
    ports, (policy,) = with_it["Service"]["spec"]["ports"], with_it["NetworkPolicy"]["spec"]["ingress"]
    port = runs["ports"].pop()
    assert (port["name"], policy["ports"].pop()["port"]) == ("grpc", "grpc")
    assert runs["env"].pop() == {"name": f"{ENVIRONMENT_PREFIX}GRPC_PORT", "value": str(port["containerPort"])}
    asked = {"name": "grpc", "port": port["containerPort"], "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
    assert [ports.pop()] == headless["ports"] == [asked]  # a client of the headless one meets the pods' own port
    assert with_it == without


def test_selectors_match_the_pods_and_every_target_is_there() -> None:
    deployment = read("kubernetes/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        read("kubernetes/service.yaml")["spec"]["selector"],
        read("kubernetes/disruption.yaml")["spec"]["selector"]["matchLabels"],
        read("kubernetes/network.yaml")["spec"]["podSelector"]["matchLabels"],
        read("kubernetes/monitor.yaml")["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in spread),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()
    for name in ("autoscaler.yaml", "autoscaler-queue.yaml"):
        target = read(f"kubernetes/{name}")["spec"]["scaleTargetRef"]
        there = [deployment["apiVersion"], deployment["kind"], deployment["metadata"]["name"]]
        assert [target[field] for field in ("apiVersion", "kind", "name")] == there


def test_ports_are_the_images() -> None:
    (exposed,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert f"SPIKESERVE_PORT={exposed}" in DOCKERFILE
    assert int(exposed) == Settings.model_fields["port"].default
    deployment = read("kubernetes/deployment.yaml")
    named = {port["name"]: port["containerPort"] for port in container("kubernetes/deployment.yaml")["ports"]}
    assert named == {"http": int(exposed)}
    assert [port["targetPort"] for port in read("kubernetes/service.yaml")["spec"]["ports"]] == ["http"]
    (allowed,) = read("kubernetes/network.yaml")["spec"]["ingress"]
    assert [port["port"] for port in allowed["ports"]] == ["http"]
    (scraped,) = read("kubernetes/monitor.yaml")["spec"]["podMetricsEndpoints"]
    (scrape,) = read("compose/prometheus.yml")["scrape_configs"]
    assert (scraped["port"], scraped["path"]) == ("http", scrape["metrics_path"])
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == exposed
    runtime = read("kserve/runtime.yaml")
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == exposed
    assert [port["containerPort"] for port in container("kserve/runtime.yaml")["ports"]] == [int(exposed)]
    assert f"--port={exposed}" in container("kserve/runtime.yaml")["args"]
    compose = read("compose/compose.yaml")["services"]["spikeserve"]
    assert [port.rpartition(":")[2] for port in compose["ports"]] == [exposed]
    assert scrape["static_configs"] == [{"targets": [f"spikeserve:{exposed}"]}]


@BOTH
def test_probes_and_scrapes_ask_paths_that_there_are(path: str) -> None:
    app = create_app(Settings(repository=PRETRAINED))
    routes = {route.path for route in app.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())}
    runs = container(path)
    probes = {name: runs[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    asked = {name: probe["path"] for name, probe in probes.items()}
    assert asked == {"startup": "/health/live", "readiness": "/health/ready", "liveness": "/health/live"}
    assert {*asked.values(), read("compose/prometheus.yml")["scrape_configs"][0]["metrics_path"]} <= routes
    ports = {port["name"]: port["containerPort"] for port in runs["ports"]}
    assert {ports.get(probe["port"], probe["port"]) for probe in probes.values()} == set(ports.values())


@BOTH
def test_nothing_may_become_root_or_write_but_a_bounded_temporary_folder(path: str) -> None:
    document = read(path)
    spec = of_the_pod(document)
    security = spec.get("securityContext", {}) | container(path)["securityContext"]
    (user,) = re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == int(user)
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(path)["resources"].keys() == {"requests", "limits"}
    (volume,) = spec["volumes"]
    assert volume["emptyDir"]["sizeLimit"]
    assert container(path)["volumeMounts"] == [{"name": volume["name"], "mountPath": "/tmp"}]  # noqa: S108


def test_compose_may_not_either_and_is_reached_from_this_machine_only() -> None:
    services = read("compose/compose.yaml")["services"]
    ours = services["spikeserve"]
    assert (ours["read_only"], ours["cap_drop"], ours["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert [mount.split(":")[0] for mount in ours["tmpfs"]] == ["/tmp"]  # noqa: S108
    for service in services.values():
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])


@BOTH
def test_settings_are_settings(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = container(path)
    for variable in runs["env"]:
        name = variable["name"].removeprefix(ENVIRONMENT_PREFIX).lower()
        assert name in Settings.model_fields
        monkeypatch.setenv(variable["name"], variable.get("value", "2" if name == "threads" else DIGEST))
    arguments = [each.replace("/mnt/models", str(PRETRAINED)) for each in runs.get("args", [])]
    assert read_settings(arguments).threads == 2 == int(runs["resources"]["limits"]["cpu"])


def test_compose_sets_what_its_limits_ask_for_as_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = read("compose/compose.yaml")["services"]["spikeserve"]
    for name, value in ours["environment"].items():
        monkeypatch.setenv(name, value)
    settings = read_settings([])
    assert settings.threads == ours["cpus"]
    assert (ours["mem_limit"], settings.max_pending_bytes) == ("1g", 2**28)
    for path in ("kubernetes/deployment.yaml", "kserve/runtime.yaml"):
        runs = container(path)
        (bytes_,) = [each["value"] for each in runs["env"] if each["name"] == "SPIKESERVE_MAX_PENDING_BYTES"]
        assert (runs["resources"]["limits"]["memory"], int(bytes_)) == ("1Gi", settings.max_pending_bytes)


def test_a_secret_that_is_not_there_is_no_setting() -> None:
    # An empty one would stop the start, so that no pod is open where keys were meant.
    secrets = [
        each["valueFrom"]["secretKeyRef"]
        for each in container("kubernetes/deployment.yaml")["env"]
        if "secretKeyRef" in each.get("valueFrom", {})
    ]
    assert [(secret["key"], secret["optional"]) for secret in secrets] == [("api-keys", True), ("admin-keys", True)]


def test_a_service_of_our_name_sets_no_setting_of_ours() -> None:
    # Kubernetes gives every pod <SERVICE>_PORT=tcp://… for each Service: ours would be SPIKESERVE_PORT.
    assert read("kubernetes/service.yaml")["metadata"]["name"].upper() + "_" == ENVIRONMENT_PREFIX
    assert read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_a_pod_has_the_time_to_drain() -> None:
    drain = Settings.model_fields["shutdown_seconds"].default
    wait = container("kubernetes/deployment.yaml")["lifecycle"]["preStop"]["sleep"]["seconds"]
    spec = read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > wait + drain + 1  # a second after which it ends whatever still runs
    # Knative refuses another grace period than its own, of 300 seconds; without Knative it is Kubernetes' 30.
    assert "terminationGracePeriodSeconds" not in read("kserve/inference-service.yaml")["spec"]["predictor"]
    assert drain + 1 < 30
    # Knative, which takes no preStop hook, and a load balancer of one's own have as long to notice.
    assert f"SPIKESERVE_DRAIN_SECONDS={wait} " in DOCKERFILE
    assert int(read("compose/compose.yaml")["services"]["spikeserve"]["stop_grace_period"].rstrip("s")) > drain


def test_all_name_the_image_of_this_version_that_the_readme_says_how_to_build() -> None:
    (image,) = set(re.findall(r"docker build -t (\S+) \.", (DEPLOY / "README.md").read_text()))
    name, _, tag = image.partition(":")
    assert tag == VERSION
    (built,) = set(re.findall(r"docker build -t (\S+) \.", DOCKERFILE))
    assert built == name
    (changed,) = read("kubernetes/kustomization.yaml")["images"]
    assert (
        (changed["name"], changed["newTag"]) == (container("kubernetes/deployment.yaml")["image"], tag) == (name, tag)
    )
    compose = read("compose/compose.yaml")["services"]["spikeserve"]
    assert {container("kserve/runtime.yaml")["image"], compose["image"]} == {image}
    assert (DEPLOY / "compose" / compose["build"]["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_no_image_is_whatever_is_the_latest() -> None:
    images = [service["image"] for service in read("compose/compose.yaml")["services"].values()]
    for image in (*images, container("kserve/runtime.yaml")["image"]):
        assert re.search(r":v?\d+\.\d+\.\d+$", image), image


def test_the_runtime_keeps_to_what_knative_takes_by_default() -> None:
    # Without features that are off there: no hook, and no value from the pod's own fields.
    runs = container("kserve/runtime.yaml")
    assert "lifecycle" not in runs
    assert not [
        variable for variable in runs["env"] if {"fieldRef", "resourceFieldRef"} & variable.get("valueFrom", {}).keys()
    ]


def test_the_queues_target_is_half_a_second_of_waiting_with_the_threads_that_a_pod_has() -> None:
    by_queue = read("kubernetes/autoscaler-queue.yaml")["spec"]
    (target,) = [each["pods"]["target"] for each in by_queue["metrics"] if "pods" in each]
    threads = int(container("kubernetes/deployment.yaml")["resources"]["limits"]["cpu"])
    assert (target["type"], float(target["averageValue"])) == ("AverageValue", 0.5 * threads)
    by_cpu = read("kubernetes/autoscaler.yaml")["spec"]
    assert [each for each in by_queue["metrics"] if "resource" in each] == by_cpu["metrics"]
    assert by_queue | {"metrics": by_cpu["metrics"]} == by_cpu


def test_the_inference_service_fits_the_runtime() -> None:
    runtime, model = read("kserve/runtime.yaml"), read("kserve/inference-service.yaml")["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["modelFormat"]["name"] in {each["name"] for each in runtime["spec"]["supportedModelFormats"]}
    assert container("kserve/runtime.yaml")["name"] == "kserve-container"


def test_compose_mounts_files_that_there_are_and_grafana_asks_its_prometheus() -> None:
    services = read("compose/compose.yaml")["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            if volume.startswith("."):
                assert (DEPLOY / "compose" / volume.split(":")[0]).exists(), volume
    (source,) = read("compose/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    mounted = {volume.split(":")[1] for volume in services["grafana"]["volumes"]}
    (provider,) = read("compose/grafana/provisioning/dashboards/spikeserve.yaml")["providers"]
    assert provider["options"]["path"] in mounted


def test_the_patch_in_the_readme_is_one() -> None:
    (patch,) = re.findall(r"--patch '(.*?)'", (DEPLOY / "README.md").read_text(), re.DOTALL)
    parsed = json.loads(patch)["spec"]["template"]["spec"]
    deployment = read("kubernetes/deployment.yaml")
    spec, runs = of_the_pod(deployment), of_the_pod(deployment)["containers"][0]
    (patched,) = parsed["containers"]
    assert patched["name"] == runs["name"]
    spec["volumes"] += parsed["volumes"]
    for field in ("env", "volumeMounts"):
        runs[field] += patched[field]
    assert faults(deployment) == []


def test_compose_is_what_its_schema_says() -> None:
    path = str(DEPLOY / "compose" / "compose.yaml")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def patched(name: str) -> dict[str, Any]:
    """Return the runtime for KServe with one of its patches, in which each path is there."""
    runtime = read("kserve/runtime.yaml")
    for change in yaml.safe_load((DEPLOY / "kserve" / name).read_text()):
        *way, last = change["path"].split("/")[1:]
        place: Any = runtime
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        if change["op"] == "add":
            assert last == "-"
            place.append(change["value"])
        else:
            assert (change["op"], last in place) == ("replace", True)
            place[last] = change["value"]
    assert faults(runtime) == []
    return runtime


@pytest.mark.parametrize("name", ["grpc.yaml", "grpc-knative.yaml"])
def test_a_patch_for_grpc_fits_the_runtime_and_its_port_is_the_servers(name: str) -> None:
    runtime = patched(name)
    assert runtime["spec"]["protocolVersions"][-1] == "grpc-v2"
    runs = runtime["spec"]["containers"][0]
    *others, grpc = runs["ports"]
    assert grpc["name"] == "h2c"
    assert f"--grpc-port={grpc['containerPort']}" in runs["args"]
    assert [port["containerPort"] for port in others] == ([] if "knative" in name else [8000])
    assert f"deploy/kserve/{name}" in README


def test_with_knative_no_probe_over_http_asks_the_port_for_grpc() -> None:
    # A liveness probe by httpGet is sent to the container's one port, whatever it says. The others go where they say.
    runs = patched("grpc-knative.yaml")["spec"]["containers"][0]
    assert [runs[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe")] == [8000, 8000]
    liveness = read("kserve/runtime.yaml")["spec"]["containers"][0]["livenessProbe"]
    command = runs["livenessProbe"].pop("exec")["command"]
    path = liveness.pop("httpGet")["path"]
    assert runs["livenessProbe"] == liveness
    with running(PRETRAINED, ready=0) as service:
        asked = [sys.executable, *command[1:-1], command[-1].replace("http://127.0.0.1:8000", service.url)]
        assert f"{service.url}{path}" in asked[-1]
        assert subprocess.run(asked, check=False).returncode == 0
    assert subprocess.run(asked, capture_output=True, check=False).returncode == 1
