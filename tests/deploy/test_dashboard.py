"""The dashboard's queries and the alerts' are of what the service exposes once it was asked, and leave nothing out.

What the autoscaler sees of a queue is the work that waits in it, by Prometheus itself on sample series.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.http.openapi import example
from tests.deploy.ways import DEPLOY, read
from tests.serving import serving

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "spikeserve.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
RULES: list[dict[str, Any]] = [rule for group in read("prometheus/rules.yml")["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
QUERIES = sorted({target["expr"] for panel in PANELS for target in panel["targets"]})
OF_VARIABLES = [each["query"]["query"] for each in VARIABLES.values() if each["type"] == "query"]
OF_RULES = [rule["expr"] for rule in RULES]
BY_PROMETHEUS = {"up"}  # a metric that a scrape makes
LABELS_OF_A_SCRAPE = {"instance", "job", "namespace"}
LEFT_OUT = {"process_virtual_memory_bytes"}  # exposed and not shown: address space says nothing of a process
ADAPTER: dict[str, Any] = read("prometheus/adapter.yaml")["rules"]["custom"][0]


class Read(NamedTuple):
    """A metric that a query reads, the labels that it is selected or grouped by, and those that a variable chooses."""

    metric: str
    labels: frozenset[str]
    chosen: frozenset[str]
    aggregated: bool


def reads(query: str) -> list[Read]:
    """Return the metrics that a query reads, in order; raises ValueError where it is no query."""
    if values := re.fullmatch(r"label_values\((.*), (\w+)\)", query):
        return [each._replace(labels=each.labels | {values[2]}) for each in reads(values[1])]
    return list(_below(promql_parser.parse(query.replace("$__rate_interval", "1m")), frozenset(), False))


def _below(node: Any, labels: frozenset[str], aggregated: bool) -> Iterator[Read]:
    """Yield the metrics below a node of a query, which is inside of an aggregation by some labels."""
    if isinstance(node, promql_parser.VectorSelector):
        matchers = node.matchers.matchers
        chosen = frozenset(each.name for each in matchers if each.value == f"${each.name}")
        yield Read(str(node.name), labels | {each.name for each in matchers}, chosen, aggregated)
        return
    if isinstance(node, promql_parser.AggregateExpr):
        labels, aggregated = labels | {*(node.modifier.labels if node.modifier else ())}, True
    parts = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    for part in filter(None, [*parts, *getattr(node, "args", ())]):
        yield from _below(part, labels, aggregated)


def leaves(query: str) -> set[str]:
    """Return the labels that what comes out of a query has, so that a legend may name them.

    What stands behind the query's last `and on` or `unless on` only filters, and adds no label.
    """
    shown = re.sub(r"(?s)(.*)\b(?:and|unless) on \(.*", r"\1", query)
    grouped = [set(re.findall(r"\w+", each)) for each in re.findall(r"\bby \(([^)]*)\)", shown)]
    return set.intersection(*grouped) - {"le"} if grouped else set()


RECORDED = {rule["record"]: leaves(rule["expr"]) for rule in RULES if "record" in rule}


def promtool(*arguments: str) -> None:
    """Run Prometheus' own checker, where it is installed."""
    if (program := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed: it comes with Prometheus, and in Debian's package of that name")
    ran = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


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
    known = exposed | RECORDED | {name: set[str]() for name in BY_PROMETHEUS}
    for each in reads(query):
        if each.metric not in known:
            yield f"there is no metric {each.metric}"
        for label in sorted(each.labels - known.get(each.metric, each.labels) - LABELS_OF_A_SCRAPE):
            yield f"{each.metric} has no label {label}"


def test_what_there_is_not_is_found(exposed: dict[str, set[str]]) -> None:
    query = 'sum by (mode) (spikeserve_queue_depth{version="1"}) + sum(spikeserve_nothing_total)'
    depth = "spikeserve_queue_depth has no label"
    missing = [f"{depth} mode", f"{depth} version", "there is no metric spikeserve_nothing_total"]
    assert list(faults(query, exposed)) == missing


@pytest.mark.parametrize("query", [*QUERIES, *OF_VARIABLES, *OF_RULES])
def test_a_query_asks_for_what_there_is_of_all_workers_and_obeys_each_choice(
    exposed: dict[str, set[str]], query: str
) -> None:
    assert list(faults(query, exposed)) == []
    assert reads(query)
    # A server of several workers gives each of its series a label that one of a single worker has not.
    for each in reads(query) if query not in OF_VARIABLES else ():
        assert each.aggregated, each.metric
        assert "worker" not in each.labels
        assert query not in QUERIES or each.chosen == {"job", "instance"} | ({"model"} & exposed[each.metric])


def test_every_metric_is_shown_or_left_out_on_purpose(exposed: dict[str, set[str]]) -> None:
    def plain(name: str) -> str:
        return re.sub(r"_(bucket|sum|count)$", "", name)

    shown = {plain(each.metric) for query in QUERIES for each in reads(query)}
    assert {plain(name) for name in exposed} - shown == LEFT_OUT


def test_every_panel_says_what_it_shows_asks_the_chosen_source_and_names_labels_that_its_query_leaves() -> None:
    (source,) = read("compose/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    choice, asked = VARIABLES["datasource"], {"type": source["type"], "uid": "${datasource}"}
    assert (choice["type"], choice["query"]) == ("datasource", source["type"])
    assert choice["current"] == {"text": source["name"], "value": source["uid"]}  # at first the provisioned one
    assert all(each["datasource"] == asked for each in VARIABLES.values() if each["type"] == "query")
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert all(each["datasource"] == asked for each in (panel, *panel["targets"]))
        for target in panel["targets"]:
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert (target["legendFormat"] != "", labels) == (True, leaves(target["expr"])), panel["title"]


def test_every_row_of_the_dashboard_has_panels_and_no_two_have_one_id() -> None:
    kinds = "".join("row " if panel["type"] == "row" else "panel " for panel in DASHBOARD["panels"])
    assert kinds.startswith("row panel")
    assert "row row" not in f"{kinds}row"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_an_alert_says_what_is_wrong_by_labels_that_its_query_leaves_and_has_its_test() -> None:
    for rule in ALERTS:
        text = " ".join(rule["annotations"].values())
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert "$labels" in text or "$value" in text, rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= leaves(rule["expr"]), rule["alert"]
    tests = yaml.safe_load((Path(__file__).parent / "alerts.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for raised in (True, False):
        names = {case["alertname"] for case in cases if bool(case.get("exp_alerts")) is raised}
        assert names == {rule["alert"] for rule in ALERTS}


def test_prometheus_parses_every_query_and_rule_and_raises_each_alert_when_it_should(tmp_path: Path) -> None:
    asked = [query.replace("$__rate_interval", "1m") for query in QUERIES]
    rules = [{"record": f"query:{index}", "expr": query} for index, query in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    for file in (tmp_path / "rules.yml", DEPLOY / "prometheus" / "rules.yml"):
        promtool("check", "rules", "--lint-fatal", str(file))
    promtool("test", "rules", str(Path(__file__).parent / "alerts.yml"))


def test_the_autoscaler_goes_by_metrics_that_there_are(exposed: dict[str, set[str]]) -> None:
    names = set(re.findall(r"spikeserve_\w+", ADAPTER["seriesQuery"] + ADAPTER["metricsQuery"]))
    assert len(names) == 7
    assert {name for name in names if "model" not in exposed[name]} == {"spikeserve_worker_threads"}
    metrics = read("kubernetes/autoscaler-queue.yaml")["spec"]["metrics"]
    assert [each["pods"]["metric"]["name"] for each in metrics if "pods" in each] == [ADAPTER["name"]["as"]]


def test_the_autoscaler_sees_the_work_that_waits(tmp_path: Path) -> None:
    query = ADAPTER["metricsQuery"]
    for word, text in (("GroupBy", "pod"), ("LabelMatchers", 'namespace="n",pod=~".+"'), ("Series", "none")):
        query = query.replace(f"<<.{word}>>", text)
    assert "<<" not in query
    cases = yaml.safe_load((Path(__file__).parent / "queue.yml").read_text())
    for case in (each for test in cases["tests"] for each in test["promql_expr_test"]):
        case["expr"] = case["expr"].replace("QUERY", query)
    (tmp_path / "queue.yml").write_text(yaml.safe_dump(cases))
    promtool("test", "rules", str(tmp_path / "queue.yml"))
