"""The dashboard's queries and the alerts' are of what the service exposes once it was asked, and leave nothing out.

What the autoscaler sees of a queue is the work that waits in it, by Prometheus itself on sample series.

Queries in PromQL, taken apart as far as ours go: which metrics they read, by which labels, and within what.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.http.openapi import example
from tests.serving import serving

# What is no metric: functions, aggregations and the words between them.
AGGREGATIONS = frozenset({"sum", "max", "min", "count", "avg", "absent"})
FUNCTIONS = "rate histogram_quantile time count_over_time min_over_time max_over_time increase label_values abs ln"
WORDS = {*AGGREGATIONS, *FUNCTIONS.split(), "by", "on", "ignoring", "and", "or", "unless", "offset"}

_TOKEN = re.compile(
    r"""(?P<range>\[[^\]]*\])|(?P<labels>\{[^}]*\})|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<number>[0-9.]+[a-z]*)
    |(?P<text>"[^"]*")|(?P<sign>[-+*/(),]|[<>=!]=?)|\s+""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Read:
    """A metric that a query reads, the labels that it is selected or grouped by, and the aggregations around it."""

    metric: str
    labels: frozenset[str]
    within: tuple[str, ...]


def reads(query: str) -> list[Read]:
    """Return the metrics that a query reads, in order; raises ValueError where it is not as ours are."""
    tokens = list(_tokens(query))
    found, around, at = [], [], 0
    pending: tuple[str, frozenset[str]] = ("", frozenset())  # what the next bracket opens
    while at < len(tokens):
        kind, text = tokens[at]
        at += 1
        if text in ("by", "on", "ignoring"):
            end = tokens.index(("sign", ")"), at)
            named = frozenset(name for sort, name in tokens[at:end] if sort == "name")
            at = end + 1
            # The labels of `by` are of what its brackets hold; those of `on` are of what stands on both sides, which is
            # grouped by them too.
            pending = (pending[0], named) if text == "by" else pending
        elif text == "(":
            around.append(pending)
            pending = ("", frozenset())
        elif text == ")":
            around.pop()
        elif kind == "name" and text in WORDS:
            pending = (text, frozenset())
        elif kind == "name":
            labels: set[str] = set().union(*(grouped for _, grouped in around))
            if at < len(tokens) and tokens[at][0] == "labels":
                labels |= set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", tokens[at][1]))
                at += 1
            if around and around[0][0] == "label_values":
                labels |= {name for sort, name in tokens[at:] if sort == "name"}
                at = len(tokens)
            found.append(Read(text, frozenset(labels), tuple(name for name, _ in around if name)))
    return found


def leaves(query: str) -> set[str]:
    """Return the labels that what comes out of a query has, so that a legend may name them.

    What stands behind the query's last `and on` or `unless on` only filters, and adds no label.
    """
    kept = re.match(r"(.*)\b(?:and|unless) on \(", query, re.DOTALL)
    shown = query if kept is None else kept[1]
    grouped = [set(re.findall(r"\w+", each)) for each in re.findall(r"\bby \(([^)]*)\)", shown)]
    return set.intersection(*grouped) - {"le"} if grouped else set()


def promtool(*arguments: str) -> None:
    """Run Prometheus' own checker, where it is installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: it comes with Prometheus, and in Debian's package of that name")
    ran = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _tokens(query: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:
            raise ValueError(f"{query!r}: '{query[at:]}' is nothing that is known here")
        at = found.end()
        if found.lastgroup:
            yield found.lastgroup, found[0]


DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "spikeserve.json").read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
GROUPS: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
RECORDED = {rule["record"]: leaves(rule["expr"]) for rule in RULES if "record" in rule}
QUERIES = sorted({target["expr"] for panel in PANELS for target in panel["targets"]})
OF_VARIABLES = [each["query"]["query"] for each in VARIABLES.values() if each["type"] == "query"]
BY_PROMETHEUS = {"up"}  # a metric that a scrape makes
LABELS_OF_A_SCRAPE = {"instance", "job", "namespace"}
WORKER = "worker"  # the label that says which of several workers a value is of

LEFT_OUT = {"process_virtual_memory_bytes"}  # exposed and not shown: address space says nothing of a process


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The labels of what the service exposes after a request that had to wait for a worker, and a session."""
    with serving(PRETRAINED) as client:
        assert client.post("/predict", json={"inputs": [example(None)["inputs"][0]] * 256}).status_code == 200
        assert client.post("/models/braille/stream?step_us=1000", content=bytes(8)).status_code == 200
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def faults(query: str, exposed: dict[str, set[str]]) -> Iterator[str]:
    """Name the metrics and labels that a query reads and nobody exposes."""
    for read in reads(query):
        if read.metric in BY_PROMETHEUS:
            known: set[str] = set()
        elif read.metric in exposed | RECORDED:
            known = (exposed | RECORDED)[read.metric]
        else:
            yield f"there is no metric {read.metric}"
            continue
        for label in sorted(read.labels - known - LABELS_OF_A_SCRAPE):
            yield f"{read.metric} has no label {label}"


def test_what_there_is_not_is_found(exposed: dict[str, set[str]]) -> None:
    assert list(faults("sum(spikeserve_nothing_total)", exposed)) == ["there is no metric spikeserve_nothing_total"]
    assert list(faults("sum by (mode) (spikeserve_queue_depth)", exposed)) == [
        "spikeserve_queue_depth has no label mode"
    ]
    assert list(faults('sum(spikeserve_queue_depth{version="1"})', exposed)) == [
        "spikeserve_queue_depth has no label version"
    ]


@pytest.mark.parametrize("query", [*QUERIES, *OF_VARIABLES, *(rule["expr"] for rule in RULES)])
def test_a_query_asks_for_what_there_is(exposed: dict[str, set[str]], query: str) -> None:
    assert reads(query)
    assert list(faults(query, exposed)) == []


@pytest.mark.parametrize("query", [*QUERIES, *(rule["expr"] for rule in RULES)])
def test_a_query_is_of_all_workers_together(query: str) -> None:
    # A server of several workers gives each of its series a label that one of a single worker has not.
    for read in reads(query):
        assert AGGREGATIONS & set(read.within), read.metric
        assert WORKER not in read.labels


def test_every_metric_is_shown_or_left_out_on_purpose(exposed: dict[str, set[str]]) -> None:
    def plain(name: str) -> str:
        return re.sub(r"_(bucket|sum|count)$", "", name)

    shown = {plain(read.metric) for query in QUERIES for read in reads(query)}
    assert {plain(name) for name in exposed} - shown == LEFT_OUT


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_obeys_each_choice_that_it_can(exposed: dict[str, set[str]], query: str) -> None:
    chosen = [set(re.findall(r'(\w+)=~"\$\1"', labels)) for labels in re.findall(r"\{([^}]*)\}", query)]
    assert len(chosen) == len(reads(query))
    for read, names in zip(reads(query), chosen, strict=True):
        assert names == {"job", "instance"} | ({"model"} & exposed[read.metric])


def test_a_legend_names_labels_that_its_query_leaves() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert target["legendFormat"]
            assert named == leaves(target["expr"]), panel["title"]


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_panels_do_not_overlap_and_every_row_has_some() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    heights = {y for _, y in taken}
    assert heights == set(range(len(heights)))  # no gap
    below = [DASHBOARD["panels"][DASHBOARD["panels"].index(row) + 1]["type"] for row in ROWS]
    assert DASHBOARD["panels"][0] is ROWS[0]
    assert "row" not in below


def test_panels_ask_the_source_that_is_chosen_and_that_is_the_provisioned_one_at_first() -> None:
    (source,) = yaml.safe_load((DEPLOY / "compose/grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    choice = VARIABLES["datasource"]
    assert (choice["type"], choice["query"]) == ("datasource", source["type"])
    assert choice["current"] == {"text": source["name"], "value": source["uid"]}
    asked = {"type": source["type"], "uid": "${datasource}"}
    for panel in PANELS:
        assert all(each["datasource"] == asked for each in (panel, *panel["targets"]))
    assert all(each["datasource"] == asked for each in VARIABLES.values() if each["type"] == "query")


def test_an_alert_says_what_is_wrong_by_labels_that_its_query_leaves() -> None:
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"warning", "critical"}
            text = " ".join(rule["annotations"].values())
            named = set(re.findall(r"\$labels\.(\w+)", text))
            assert "$labels" in text or "$value" in text, rule["alert"]
            assert named <= leaves(rule["expr"]), rule["alert"]


def test_prometheus_parses_every_query_of_the_dashboard(tmp_path: Path) -> None:
    asked = [query.replace("$__rate_interval", "1m") for query in QUERIES]
    rules = [{"record": f"query:{index}", "expr": query} for index, query in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", "--lint-fatal", str(tmp_path / "rules.yml"))


def test_prometheus_takes_the_rules_and_each_alert_is_raised_when_it_should_be() -> None:
    promtool("check", "rules", "--lint-fatal", str(DEPLOY / "prometheus" / "rules.yml"))
    promtool("test", "rules", str(Path(__file__).parent / "alerts.yml"))


def test_every_alert_has_its_test() -> None:
    tests = yaml.safe_load((Path(__file__).parent / "alerts.yml").read_text())["tests"]
    raised = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    quiet = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case.get("exp_alerts")}
    assert raised == quiet == {rule["alert"] for rule in RULES if "alert" in rule}


def test_the_autoscaler_goes_by_metrics_that_there_are(exposed: dict[str, set[str]]) -> None:
    (rule,) = yaml.safe_load((DEPLOY / "prometheus/adapter.yaml").read_text())["rules"]["custom"]
    names = set(re.findall(r"spikeserve_\w+", rule["seriesQuery"] + rule["metricsQuery"]))
    assert len(names) == 7
    assert {name for name in names if "model" not in exposed[name]} == {"spikeserve_worker_threads"}


def test_prometheus_reads_the_rules_that_compose_gives_it() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    mounted = dict(reversed(volume.split(":")[:2]) for volume in services["prometheus"]["volumes"])
    (read,) = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())["rule_files"]
    assert (DEPLOY / "compose" / mounted[read]).resolve() == DEPLOY / "prometheus" / "rules.yml"


ADAPTER: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yaml").read_text())
MINUTES = 5
SCRAPES = MINUTES * 4  # every 15 seconds


def query(pods: str) -> str:
    """Return the adapter's query for the metric of pods of one namespace."""
    (rule,) = ADAPTER["rules"]["custom"]
    asked: str = rule["metricsQuery"]
    for name, text in (("GroupBy", "pod"), ("LabelMatchers", f'namespace="n",pod=~"{pods}"'), ("Series", "none")):
        asked = asked.replace(f"<<.{name}>>", text)
    assert "<<" not in asked
    return asked


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    shown = ", ".join(f'{key}="{value}"' for key, value in {"namespace": "n", **labels}.items())
    return {"series": f"spikeserve_{name}{{{shown}}}", "values": values}


def rises(by: float) -> str:
    return f"0+{by}x{SCRAPES}"


def waits(requests: int) -> str:
    return f"{requests}x{SCRAPES}"


def check(folder: Path, samples: list[dict[str, str]], pods: str, expected: dict[str, float]) -> None:
    test = {
        "interval": "15s",
        "input_series": samples,
        "promql_expr_test": [
            {
                "expr": f"round({query(pods)}, 1 / 1024)",  # what rates extrapolate to is a bit off
                "eval_time": f"{MINUTES}m7s",  # between two scrapes, so that a minute has four in all versions
                "exp_samples": [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in expected.items()],
            }
        ],
    }
    (folder / "queue.yml").write_text(yaml.safe_dump({"tests": [test]}))
    promtool("test", "rules", str(folder / "queue.yml"))


def work(pod: str, model: str, *, in_progress: float, running: float, takes: float) -> list[dict[str, str]]:
    """Return the series of a model: its requests in progress, how many of them run, and what one takes in seconds."""
    of, scrape = {"pod": pod, "model": model}, 15
    return [
        series("model_request_seconds_sum", rises(in_progress * scrape), **of, version="1"),
        series("inference_seconds_sum", rises(running * scrape), **of, version="1", engine="event"),
        series("model_requests_total", rises(running * scrape / takes), **of, version="1", status="200"),
    ]


def pod(name: str, *models: str, workers: int = 1) -> list[dict[str, str]]:
    """Return the samples that a pod of two threads exposes whether it has requests or not."""
    threads = [
        series("worker_threads", waits(2 // workers), pod=name, worker=str(worker + 1)) for worker in range(workers)
    ]
    return [*threads, *(series("queue_depth", waits(0), pod=name, model=model) for model in models)]


def test_what_waits_counts_by_what_it_takes(tmp_path: Path) -> None:
    samples = [
        *pod("a", "slow"),
        *work("a", "slow", in_progress=6, running=2, takes=4),  # 4 wait for 4 s each
        *pod("b", "quick"),
        *work("b", "quick", in_progress=34, running=2, takes=1 / 128),  # 32 wait, and that is little
        *pod("idle", "slow", "quick"),
    ]
    check(tmp_path, samples, "a|b|idle", {"a": 16, "b": 0.25, "idle": 0})


def test_models_and_workers_of_a_pod_add_up_and_a_new_pod_has_the_others_price(tmp_path: Path) -> None:
    answered = work("old", "slow", in_progress=2, running=2, takes=4)
    begun = work("new", "slow", in_progress=3, running=1, takes=4)[:2]  # none of them has been answered
    samples = [
        *pod("old", "slow"),
        *answered,
        *pod("new", "slow", "quick", workers=2),
        *begun,
        *work("new", "quick", in_progress=65, running=1, takes=1 / 128),
    ]
    # Three seconds of runs of `slow` for each half of an answer: it takes 6 s by now. 2 * 6 and 64 / 128 wait.
    check(tmp_path, samples, "old|new", {"old": 0, "new": 12.5})


def test_what_waits_for_a_slow_client_scales_nothing(tmp_path: Path) -> None:
    # Ten bodies that come slowly, for a model whose runs take 4 s: the threads are busy for a 64th of the time.
    samples = [*pod("a", "slow"), *work("a", "slow", in_progress=8 + 1 / 32, running=1 / 32, takes=4)]
    check(tmp_path, samples, "a", {"a": 8 * 4 / 64})


def test_windows_of_sessions_are_work_too_and_what_was_refused_is_none(tmp_path: Path) -> None:
    samples = [
        *pod("a", "live"),
        series("session_lag_seconds_sum", rises(6 * 15), pod="a", model="live"),
        series("inference_seconds_sum", rises(2 * 15), pod="a", model="live", version="1", engine="event"),
        series("session_windows_total", rises(30), pod="a", model="live"),
        series("model_requests_total", rises(20), pod="a", model="live", version="1", status="200"),
        series("model_requests_total", rises(10), pod="a", model="live", version="1", status="504"),
        series("model_requests_total", rises(1000), pod="a", model="live", version="1", status="503"),
        series("model_requests_total", rises(1000), pod="a", model="live", version="1", status="422"),
    ]
    check(tmp_path, samples, "a", {"a": 4 * 0.5})  # 4 wait; 30 s of runs for 60 answers, those that came too late too


def test_a_model_that_has_answered_nothing_has_no_price(tmp_path: Path) -> None:
    idle = [each | {"values": waits(7)} for each in work("a", "idle", in_progress=1, running=1, takes=1)]
    check(tmp_path, [*pod("a", "idle"), *idle], "a", {"a": 0})  # and not the NaN of 0 / 0, which would be no metric
    slow = work("a", "slow", in_progress=3, running=2, takes=4)
    check(tmp_path, [*pod("a", "idle", "slow"), *idle, *slow], "a", {"a": 4})


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes() -> None:
    (rule,) = ADAPTER["rules"]["custom"]
    scaler = yaml.safe_load((DEPLOY / "kubernetes" / "autoscaler-queue.yaml").read_text())
    (asked,) = [each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods"]
    assert asked == rule["name"]["as"]
