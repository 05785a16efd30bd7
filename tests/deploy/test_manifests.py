"""What kustomize, the Helm chart, KServe and compose make fits each other, the image, and the service that they run.

`test_ways.py` has what each way to deploy promises as all of them do.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.version import VERSION
from spikeserve.service.process.flags import read_settings
from spikeserve.service.settings import Settings
from tests.deploy.ways import ACCEPTED, CHART, DEPLOY, DOCKERFILE, IMAGE, PORT, README, REFUSED, read, rendered, way
from tests.plugins.grpc.rpc import address, serving_grpc
from tests.serving import Process
from tests.sources import PROJECT, ROOT

# The labels by which Helm knows a release.
OF_THE_RELEASE = r"(?m)^ *(helm\.sh/chart|app\.kubernetes\.io/(instance|managed-by|version)): .*\n"
SERVICES = read("compose/compose.yaml")["services"]
COMPOSE = SERVICES["spikeserve"]
(SCRAPE,) = read("compose/prometheus.yml")["scrape_configs"]


def test_the_readme_says_how_many_lines_each_way_has() -> None:
    counted = re.findall(r"^\| \[[^|]*\| some (\d+) \|", README, re.MULTILINE)
    for number, folder in zip(counted, ("kubernetes", "helm", "kserve", "compose"), strict=True):
        files = [path for path in (DEPLOY / folder).rglob("*") if path.is_file()]
        assert int(number) == pytest.approx(sum(len(path.read_text().splitlines()) for path in files), rel=0.1)


def test_kustomize_applies_every_manifest_but_those_that_need_more_than_kubernetes() -> None:
    applied = {*read("kubernetes/kustomization.yaml")["resources"]}
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert there - applied == {"autoscaler-queue.yaml", "monitor.yaml"}


def test_what_asks_from_outside_asks_the_images_port() -> None:
    pods, kserve = way("kustomize, default").at("Deployment/spec/template/metadata/annotations"), way("KServe")
    scraped = way("kustomize, more").at("PodMonitor/spec/podMetricsEndpoints/0")
    assert f"SPIKESERVE_PORT={PORT}" in DOCKERFILE
    assert f"--port={PORT}" in kserve.container["args"]  # for a Service of that name would set SPIKESERVE_PORT
    assert pods["prometheus.io/port"] == kserve.at("workload/spec/annotations")["prometheus.kserve.io/port"] == PORT
    assert (scraped["port"], scraped["path"]) == ("http", SCRAPE["metrics_path"])
    assert COMPOSE["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert SCRAPE["static_configs"] == [{"targets": [f"spikeserve:{PORT}"]}]


def test_all_name_the_image_of_this_version_that_the_readme_says_how_to_build() -> None:
    (image,), (name,) = (set(re.findall(r"docker build -t (\S+) \.", text)) for text in (README, DOCKERFILE))
    named = {COMPOSE["image"], *(way(each).container["image"] for each in ("kustomize, default", "KServe"))}
    assert named == {image} == {f"{name}:{VERSION}"}
    assert way("kustomize, more").container["image"] == IMAGE.rpartition("=")[2]  # which the page's command gives it
    assert (DEPLOY / "compose" / COMPOSE["build"]["context"] / "Dockerfile").resolve() == ROOT / "Dockerfile"


def test_the_queues_target_is_half_a_second_of_waiting_with_the_threads_that_a_pod_has() -> None:
    pods = way("kustomize, default")
    by_queue, by_cpu = (each.at("HorizontalPodAutoscaler/spec") for each in (way("kustomize, queue"), pods))
    queue, *metrics = by_queue["metrics"]
    threads = int(pods.at("container/resources/limits/cpu"))
    assert queue["pods"]["target"] == {"type": "AverageValue", "averageValue": f"{threads / 2:g}"}
    assert by_queue | {"metrics": metrics} == by_cpu
    (seen,) = read("prometheus/adapter.yaml")["rules"]["custom"]
    assert queue["pods"]["metric"]["name"] == seen["name"]["as"]


def test_the_runtime_is_what_kserve_and_knative_take_by_default_and_the_inference_service_fits_it() -> None:
    kserve = way("KServe")
    runtime, model = kserve["ServingRuntime"], kserve.at("InferenceService/spec/predictor/model")
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


def test_a_patch_for_grpc_names_its_port_and_with_knative_no_probe_over_http_asks_it() -> None:
    for name in ("KServe, gRPC", "Knative, gRPC"):
        assert way(name).at("workload/spec/protocolVersions")[-1] == "grpc-v2"
        assert way(name).container["ports"][-1]["name"] == "h2c"
    # A liveness probe by httpGet is sent to the container's one port, whatever it says. The others go where they say.
    probe, there = (way(name).container["livenessProbe"] for name in ("Knative, gRPC", "KServe"))
    assert f"http://127.0.0.1:{PORT}{there['httpGet']['path']}" in probe["exec"]["command"][-1]
    assert {**probe, "httpGet": there["httpGet"]} == {**there, "exec": probe["exec"]}


def test_compose_may_do_no_more_than_pods_and_is_reached_from_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_compose_mounts_files_that_there_are_and_grafana_asks_its_prometheus() -> None:
    volumes = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", ())]
    mounted = {there: (DEPLOY / "compose" / place).resolve() for place, there, *_ in volumes if place.startswith(".")}
    assert all(place.exists() for place in mounted.values())
    assert all(rest == ["ro"] for place, _, *rest in volumes if place.startswith("."))
    (rules,) = read("compose/prometheus.yml")["rule_files"]
    (source,) = read("compose/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    (provider,) = read("compose/grafana/provisioning/dashboards/spikeserve.yaml")["providers"]
    assert mounted[rules] == DEPLOY / "prometheus" / "rules.yml"
    assert source["url"] == "http://prometheus:9090"
    assert mounted[provider["options"]["path"]] == DEPLOY / "grafana"


def test_compose_is_what_its_schema_says() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*check, DEPLOY / "compose" / "compose.yaml"], check=True)


def test_the_development_container_is_made_by_a_script_and_forwards_the_ports_of_compose() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    (version,) = re.findall(r"/python:(\d+\.\d+)-", container["image"])
    assert f"{version}.0" in SpecifierSet(PROJECT["requires-python"])
    script, extra = container["postCreateCommand"].split()
    assert (ROOT / script).is_file() is (extra in PROJECT["optional-dependencies"]) is True
    published = {port.split(":")[1] for service in SERVICES.values() for port in service["ports"]}
    assert {*map(str, container["forwardPorts"])} == published == container["portsAttributes"].keys()
    assert any("docker" in feature for feature in container["features"])  # which compose needs


def test_every_value_of_the_chart_is_described_and_has_a_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    groups = [(schema, yaml.safe_load((CHART / "values.yaml").read_text()))]
    for group, defaults in groups:  # which become more on the way
        described = {name: each for name, each in group["properties"].items() if name != "global"}
        assert (defaults.keys(), group["additionalProperties"]) == (described.keys(), False)
        assert all(each["description"].endswith(".") for each in group["properties"].values())
        groups += [(each, defaults[name]) for name, each in described.items() if "properties" in each]


def test_the_chart_is_of_this_version_and_helm_lints_it_without_a_word() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    assert (rendered()["lint"]["messages"], rendered()["lint"]["errors"]) == ([], [])


@pytest.mark.parametrize("name", ["default", "queue", "grpc"])
def test_the_chart_renders_to_what_kustomize_makes(name: str) -> None:
    text = yaml.safe_dump({kind: each for kind, each in way(name).items() if kind != "Pod"})
    assert yaml.safe_load(re.sub(OF_THE_RELEASE, "", text)) == way(f"kustomize, {name}")


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_the_chart_makes_and_its_notes_follow_the_values(name: str) -> None:
    makes, notes = (ACCEPTED[name].get(part, {}) for part in ("makes", "notes"))
    assert {path: way(name).at(path) for path in makes} == makes
    text = rendered()[name]["templates/NOTES.txt"]
    assert {sentence: sentence in text for sentence in notes} == notes


def test_the_charts_test_asks_the_service_and_is_none_of_its_pods() -> None:
    made, pod = way("sticky"), way("sticky")["Pod"]
    (asks,) = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert asks["image"] == made.container["image"]
    assert asks["command"][-1] == f"http://{made.at('Service/metadata/name')}:8080/health/ready"
    assert not made.at("Service/spec/selector").items() <= pod["metadata"]["labels"].items()


def test_the_charts_test_and_knatives_probe_pass_where_the_server_is_ready_and_fail_where_there_is_none() -> None:
    over_http, over_grpc = (each["command"][:-1] for each in way("grpc").at("Pod/spec/containers"))
    *probe, program = way("Knative, gRPC").at("container/livenessProbe/exec/command")
    path = {"PATH": str(Path(sys.executable).parent)}

    def asked(service: Process) -> list[int]:
        commands = [[*over_http, f"{service.url}/health/ready"], [*over_grpc, address(service)]]
        commands.append([*probe, program.replace("http://127.0.0.1:8000", service.url)])
        return [subprocess.run(command, env=path, capture_output=True).returncode for command in commands]

    with serving_grpc(PRETRAINED, "--engine", "reference", ready=2) as service:
        assert asked(service) == [0, 0, 0]
        assert service.stop() == 0
    assert asked(service) == [1, 1, 1]


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=[each["sentence"][:40] for each in REFUSED])
def test_values_that_are_wrong_are_refused_by_a_sentence(index: int) -> None:
    assert REFUSED[index]["sentence"] in rendered()[index]
    assert not re.search(r"nil pointer|interface conversion", rendered()[index])
