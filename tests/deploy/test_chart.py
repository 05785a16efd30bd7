"""The Helm chart renders to what deploy/kubernetes has, whatever the values, and refuses values that are wrong."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.version import VERSION
from spikeserve.service.catalog.mirror import MAX_SECONDS
from spikeserve.service.settings import ENVIRONMENT_PREFIX, Settings, with_protocols
from tests.deploy.schemas import faults
from tests.deploy.test_manifests import DEPLOY, DIGEST, GRPC, ROOT, built, by_kind, read
from tests.pages import block_with
from tests.plugins.grpc.rpc import address, serving_grpc
from tests.serving import Process

CHART = DEPLOY / "helm" / "spikeserve"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
OF_THE_RELEASE = {f"app.kubernetes.io/{name}" for name in ("instance", "version", "managed-by")} | {"helm.sh/chart"}
GIB = 2**30

ACCEPTED: dict[str, dict[str, Any]] = {
    "default": {},
    "fixed": {"replicas": 3, "autoscaling": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "queue": {"autoscaling": {"queuedSeconds": 1}},
    "claim": {"repository": {"claim": "models", "pollSeconds": 10}, "keys": {"secret": "mine", "required": True}},
    "url": {
        "image": {"repository": "registry.example/spikeserve", "tag": "1.2", "pullSecrets": [{"name": "registry"}]},
        "repository": {"url": "s3://bucket/models", "pollSeconds": 0.5, "cacheSize": "10Gi"},
        "envFrom": [{"secretRef": {"name": "storage"}}],
        "serviceAccount": "reader",
    },
    "readme": yaml.safe_load(block_with((DEPLOY / "README.md").read_text(), "yaml", "s3://")),
    "cache": {"repository": {"url": "s3://bucket/models", "cacheClaim": "copies"}},
    "large": {"resources": {"limits": {"cpu": 8, "memory": "1.5Gi", "example.com/device": 1}}},
    "patient": {
        "repository": {"url": "s3://bucket/models"},
        "podAnnotations": {"prometheus.io/scrape": "false"},
        "env": [
            {"name": "SPIKESERVE_SHUTDOWN_SECONDS", "value": "120"},
            {"name": "SPIKESERVE_PUBLIC_METRICS", "value": "false"},
        ],
    },
    "units": {
        "image": {"tag": "1.2@" + DIGEST},
        "resources": {"requests": {"cpu": "1500m", "memory": "500M"}, "limits": {"cpu": 1.5, "memory": "0.5T"}},
    },
    "sticky": {
        "sticky": {"seconds": 600},
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}},
    },
    "monitor": {"monitor": {"enabled": True, "interval": "30s"}},
    "grpc": {"grpc": {"enabled": True}},
    "grpc elsewhere": {"grpc": {"enabled": True, "port": 9000}, "sticky": {"seconds": 600}},
    "placed": {
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "b"},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "only", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "env": [{"name": "SPIKESERVE_MAX_QUEUE", "value": "64"}],
        "networkPolicy": {
            "from": [{"podSelector": {}}],
            "egress": [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 4318}]}],
        },
    },
}
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


@pytest.fixture(scope="module")
def helm() -> dict[str, Any]:
    """What Helm says of the chart: its lint, and what each of the values renders to or why it is refused."""
    if find_spec("helm_python") is None:
        pytest.skip("helm-python-sdk is not installed here")
    asked = [*ACCEPTED.values(), *(values for values, _ in REFUSED)]
    lines = "".join(json.dumps({"name": "spikeserve", "values": values}) + "\n" for values in asked)
    lines += "".join(json.dumps({"name": name, "values": {}}) + "\n" for name in ("prod", "a.b"))
    command = [sys.executable, "-m", "tests.deploy.helm", str(CHART)]
    ran = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    lint, *answers, other, dotted = map(json.loads, ran.stdout.splitlines())
    return {
        "lint": lint,
        "other": other,
        "a.b": dotted,
        "refused": answers[len(ACCEPTED) :],
        **dict(zip(ACCEPTED, answers, strict=False)),
    }


def documents(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the manifests that Helm made, by their kind; a template that is turned off makes none."""
    texts = {name: text for name, text in answer["files"].items() if name.endswith(".yaml")}
    return by_kind(each for text in texts.values() for each in yaml.safe_load_all(text) if each)


def plain(value: Any) -> Any:
    """Return a manifest without the labels by which Helm knows a release."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in OF_THE_RELEASE}
    return [plain(item) for item in value] if isinstance(value, list) else value


def runs(answer: dict[str, Any]) -> dict[str, Any]:
    (only,) = documents(answer)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return only


def environment(answer: dict[str, Any]) -> dict[str, Any]:
    return {each["name"].removeprefix(ENVIRONMENT_PREFIX).lower(): each.get("value") for each in runs(answer)["env"]}


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

    check(SCHEMA, DEFAULTS, "")


def test_the_readme_says_how_many_lines_each_way_has() -> None:
    counted = re.findall(r"^\| \[[^|]*\| some (\d+) \|", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    for number, folder in zip(counted, ("kubernetes", "helm", "kserve", "compose"), strict=True):
        files = [path for path in (DEPLOY / folder).rglob("*") if path.is_file()]
        assert int(number) == pytest.approx(sum(len(path.read_text().splitlines()) for path in files), rel=0.1)


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_helm_lints_it_without_a_word(helm: dict[str, Any]) -> None:
    assert (helm["lint"]["messages"], helm["lint"]["errors"]) == ([], [])


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_it_renders_to_is_of_its_kind(helm: dict[str, Any], name: str) -> None:
    assert documents(helm[name]).keys() >= {"Deployment", "Service", "PodDisruptionBudget", "Pod"}
    for kind, each in documents(helm[name]).items():
        if kind != "PodMonitor":  # as in deploy/kubernetes
            assert faults(each) == [], kind


@pytest.mark.parametrize(("name", "scaler"), [("default", "autoscaler"), ("queue", "autoscaler-queue")])
def test_it_renders_to_what_deploy_kubernetes_has(helm: dict[str, Any], name: str, scaler: str) -> None:
    made = documents(helm[name])
    for each in ("deployment", "service", scaler, "disruption", "network"):
        there = read(f"kubernetes/{each}.yaml")
        if each == "deployment":  # kustomize adds the tag
            there["spec"]["template"]["spec"]["containers"][0]["image"] += f":{VERSION}"
        assert plain(made.pop(there["kind"])) == there
    assert made.keys() == {"Pod"}  # of the test


def test_with_grpc_it_renders_to_what_kustomize_makes_of_the_component(helm: dict[str, Any], tmp_path: Path) -> None:
    made = documents(helm["grpc"])
    for kind, there in by_kind(built(tmp_path, GRPC)).items():
        assert plain(made.pop(kind)) == there
    assert made.keys() == {"Pod"}


def test_grpc_has_one_port_in_the_pods_both_services_the_policy_and_the_setting(helm: dict[str, Any]) -> None:
    made = documents(helm["grpc elsewhere"])
    assert runs(helm["grpc elsewhere"])["ports"][1] == {"name": "grpc", "containerPort": 9000}
    assert environment(helm["grpc elsewhere"])["grpc_port"] == "9000"
    asked = {"name": "grpc", "port": 9000, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"}
    service, headless = made["Service"]["spec"], made["headless Service"]["spec"]
    assert (service["ports"][1], headless["ports"], headless["clusterIP"]) == (asked, [asked], "None")
    assert headless["selector"] == service["selector"]
    (allowed,) = made["NetworkPolicy"]["spec"]["ingress"]
    assert [port["port"] for port in allowed["ports"]] == ["http", "grpc"]
    assert "grpc" not in "".join(helm["default"]["files"].values()).lower()


def test_a_monitor_stands_in_the_place_of_annotations(helm: dict[str, Any]) -> None:
    made = documents(helm["monitor"])
    there = read("kubernetes/monitor.yaml")
    there["spec"]["podMetricsEndpoints"][0]["interval"] = "30s"
    assert plain(made["PodMonitor"]) == there
    assert "annotations" not in made["Deployment"]["spec"]["template"]["metadata"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_no_value_loosens_what_a_pod_may_do_or_its_probes(helm: dict[str, Any], name: str) -> None:
    spec = documents(helm[name])["Deployment"]["spec"]["template"]["spec"]
    there = read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    assert spec["securityContext"] == there["securityContext"]
    (container,), (as_there,) = spec["containers"], there["containers"]
    for field in ("securityContext", "readinessProbe", "livenessProbe", "lifecycle"):
        assert container[field] == as_there[field]
    assert [port for port in container["ports"] if port["name"] != "grpc"] == as_there["ports"]
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    mounts = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert mounts <= {"tmp", "copies"}
    for volume in spec["volumes"]:
        assert volume.get("emptyDir", {"sizeLimit": "of a claim"})["sizeLimit"]


@pytest.mark.parametrize("name", ACCEPTED)
def test_its_settings_are_settings(helm: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = environment(helm[name])
    assert settings.keys() <= with_protocols().model_fields.keys() | {"repository_cache"}  # which a variable alone says
    assert len(settings) == len(runs(helm[name])["env"])
    for setting, value in settings.items():
        if value is not None and value != "/repository":
            monkeypatch.setenv(ENVIRONMENT_PREFIX + setting.upper(), value)
    assert Settings().url == ACCEPTED[name].get("repository", {}).get("url")


def test_what_pending_requests_may_take_is_a_quarter_of_the_memory(helm: dict[str, Any]) -> None:
    assert int(environment(helm["default"])["max_pending_bytes"]) == GIB // 4
    assert int(environment(helm["large"])["max_pending_bytes"]) == 3 * GIB // 2 // 4
    assert int(environment(helm["readme"])["max_pending_bytes"]) == 2**29  # as the page says
    assert int(environment(helm["units"])["max_pending_bytes"]) == 500 * 10**9 // 4


def test_a_pod_has_the_time_that_its_settings_give_it(helm: dict[str, Any]) -> None:
    def times(name: str) -> tuple[int, int]:
        probe = runs(helm[name])["startupProbe"]
        spec = documents(helm[name])["Deployment"]["spec"]["template"]["spec"]
        return spec["terminationGracePeriodSeconds"], probe["periodSeconds"] * probe["failureThreshold"]

    # The grace period and 20 seconds more; the time for a repository elsewhere and a minute more.
    assert times("url") == (25 + 20, 600 + 60)
    assert times("patient") == (120 + 20, 600 + 60)


def test_a_value_takes_the_place_of_what_the_chart_would_say(helm: dict[str, Any]) -> None:
    annotations = documents(helm["patient"])["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {
        "prometheus.io/scrape": "false",
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": "8000",
    }
    assert environment(helm["patient"])["public_metrics"] == "false"
    assert documents(helm["a.b"])["Service"]["metadata"]["name"] == "a-b-spikeserve"  # a Service's has no dots


def test_models_come_from_the_image_a_claim_or_a_url(helm: dict[str, Any]) -> None:
    assert "repository" not in environment(helm["default"])

    def volumes(name: str) -> dict[str, Any]:
        spec = documents(helm[name])["Deployment"]["spec"]["template"]["spec"]
        mounted = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
        return {mounted[volume.pop("name")]: volume for volume in spec["volumes"]}

    tmp = {"/tmp": {"emptyDir": {"sizeLimit": "64Mi"}}}  # noqa: S108
    claim = {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}
    assert volumes("claim") == tmp | {"/repository": claim}
    assert (environment(helm["claim"])["repository"], environment(helm["claim"])["poll_seconds"]) == (
        "/repository",
        "10",
    )
    assert volumes("url") == tmp | {"/copies": {"emptyDir": {"sizeLimit": "10Gi"}}}
    assert volumes("cache") == tmp | {"/copies": {"persistentVolumeClaim": {"claimName": "copies"}}}
    asked = environment(helm["url"])
    assert (asked["repository"], asked["repository_cache"]) == ("s3://bucket/models", "/copies")
    # Before its copies are made a server answers nothing, not even /health/live.
    probe = runs(helm["url"])["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > MAX_SECONDS
    (reached,) = documents(helm["url"])["NetworkPolicy"]["spec"]["egress"]
    assert [port["port"] for port in reached["ports"]] == [53, 53, 443]


def test_a_pod_that_needs_keys_does_not_start_without_them(helm: dict[str, Any]) -> None:
    secrets = [each["valueFrom"]["secretKeyRef"] for each in runs(helm["claim"])["env"] if "secret" in str(each)]
    assert [(each["name"], each["key"], each["optional"]) for each in secrets] == [
        ("mine", "api-keys", False),
        ("mine", "admin-keys", True),
    ]


def test_requests_of_an_address_stay_with_a_pod_where_that_is_asked_for(helm: dict[str, Any]) -> None:
    assert "sessionAffinity" not in documents(helm["default"])["Service"]["spec"]
    service = documents(helm["sticky"])["Service"]["spec"]
    assert service["sessionAffinity"] == "ClientIP"
    assert service["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 600}}


def test_its_test_asks_the_service_and_is_none_of_its_pods(helm: dict[str, Any]) -> None:
    made = documents(helm["sticky"])
    assert made["Pod"]["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert runs(helm["sticky"])["image"] == made["Pod"]["spec"]["containers"][0]["image"]
    url = made["Pod"]["spec"]["containers"][0]["command"][-1]
    assert url == f"http://{made['Service']['metadata']['name']}:8080/health/ready"
    selector = made["Service"]["spec"]["selector"]
    assert not selector.items() <= made["Pod"]["metadata"]["labels"].items()


def test_its_test_passes_where_the_server_is_ready_and_fails_where_there_is_none(helm: dict[str, Any]) -> None:
    over_http, over_grpc = (each["command"][:-1] for each in documents(helm["grpc"])["Pod"]["spec"]["containers"])
    assert over_http[0] == over_grpc[0] == "python"

    def asked(service: Process) -> list[int]:
        commands = [[*over_http, f"{service.url}/health/ready"], [*over_grpc, address(service)]]
        ran = [subprocess.run([sys.executable, *each[1:]], capture_output=True, check=False) for each in commands]
        return [each.returncode for each in ran]

    with serving_grpc(PRETRAINED, ready=2) as service:
        assert asked(service) == [0, 0]
        assert service.stop() == 0
    assert asked(service) == [1, 1]


def test_releases_have_names_and_selectors_of_their_own(helm: dict[str, Any]) -> None:
    made = documents(helm["other"])
    pods = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert pods.items() >= made["Service"]["spec"]["selector"].items()
    assert made["Service"]["spec"]["selector"]["app.kubernetes.io/instance"] == "prod"
    assert {each["metadata"]["name"] for kind, each in made.items() if kind != "Pod"} == {"prod-spikeserve"}
    assert made["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "prod-spikeserve"


def test_the_notes_say_where_the_models_are_and_what_is_open(helm: dict[str, Any]) -> None:
    notes = {name: helm[name]["files"]["templates/NOTES.txt"] for name in ("default", "url", "claim")}
    assert notes["default"].startswith("spikeserve serves the models of its image.")
    assert notes["url"].startswith("spikeserve serves the models of s3://bucket/models.")
    assert notes["claim"].startswith("spikeserve serves the models of the volume claim models.")
    assert "asks for no key" in notes["default"]
    assert "asks for no key" not in notes["claim"]
    assert "spikeserve-headless.default:8001 " in helm["grpc"]["files"]["templates/NOTES.txt"]
    assert f"spikeserve:{VERSION} has to be built with GRPC=1." in helm["grpc"]["files"]["templates/NOTES.txt"]


@pytest.mark.parametrize(("index", "sentence"), list(enumerate(sentence for _, sentence in REFUSED)))
def test_values_that_are_wrong_are_refused_by_a_sentence(helm: dict[str, Any], index: int, sentence: str) -> None:
    assert sentence in helm["refused"][index]["error"]
    assert not re.search(r"nil pointer|interface conversion", helm["refused"][index]["error"])
