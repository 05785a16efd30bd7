"""The dashboard's queries and the alerts' are of what the service exposes once it was asked, and leave nothing out.

What the autoscaler sees of a queue is the work that waits in it, by Prometheus itself on sample series.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.http.openapi import example
from tests.deploy.ways import DEPLOY, read
from tests.serving import serving

Exposed = dict[str, set[str]]  # metrics, and the labels of each
HERE = Path(__file__).parent
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "spikeserve.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
OF_VARIABLES = [each["query"]["query"] for each in VARIABLES.values() if each["type"] == "query"]
RULES: list[dict[str, Any]] = [rule for group in read("prometheus/rules.yml")["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
QUERIES = sorted({target["expr"].replace("$__rate_interval", "1m") for panel in PANELS for target in panel["targets"]})
OF_A_SCRAPE = {"instance", "job", "namespace"}  # labels
(ADAPTER,) = read("prometheus/adapter.yaml")["rules"]["custom"]


def reads(node: Any, grouped: set[str] | None = None) -> Iterator[tuple[str, dict[str, str], set[str] | None]]:
    """Yield each metric that a query, or a node of it, reads, its matchers, and the labels that it is grouped by."""
    if isinstance(node, str):
        node = promql_parser.parse(re.sub(r"label_values\((.*), (\w+)\)", r"sum by (\2) (\1)", node))
    if isinstance(node, promql_parser.VectorSelector):
        yield str(node.name), {each.name: each.value for each in node.matchers.matchers}, grouped
    if isinstance(node, promql_parser.AggregateExpr):
        grouped = {*(grouped or ()), *(node.modifier.labels if node.modifier else ())}
    parts = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
    for part in filter(None, [*parts, *getattr(node, "args", ())]):
        yield from reads(part, grouped)


def leaves(query: str) -> set[str]:
    """Return the labels that what comes out of a query has, so that a legend may name them.

    What stands behind the query's last `and on` or `unless on` only filters, and adds no label.
    """
    shown = re.sub(r"(?s)(.*)\b(?:and|unless) on \(.*", r"\1", query)
    grouped = [set(re.findall(r"\w+", each)) for each in re.findall(r"\bby \(([^)]*)\)", shown)]
    return set.intersection(*grouped) - {"le"} if grouped else set()


def promtool(*arguments: str | Path) -> None:
    """Run Prometheus' own checker, where it is installed."""
    if (program := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed: it comes with Prometheus, and in Debian's package of that name")
    subprocess.run([program, *arguments], check=True)


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    """The labels of what the service exposes after a request that had to wait for a worker, and a session."""
    with serving(PRETRAINED) as client:
        assert client.post("/predict", json={"inputs": [example(None)["inputs"][0]] * 256}).status_code == 200
        assert client.post("/models/braille/stream?step_us=1000", content=bytes(8)).status_code == 200
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


@pytest.mark.parametrize("query", [*QUERIES, *OF_VARIABLES, *(rule["expr"] for rule in RULES)])
def test_a_query_asks_for_what_there_is_of_all_workers_and_obeys_each_choice(exposed: Exposed, query: str) -> None:
    known = exposed | {"up": set()} | {rule["record"]: leaves(rule["expr"]) for rule in RULES if "record" in rule}
    assert list(reads(query))
    for metric, matchers, grouped in reads(query):
        assert metric in known
        # A server of several workers gives each of its series a label that one of a single worker has not.
        assert grouped is not None, f"{metric} is not aggregated"
        assert matchers.keys() | grouped <= known[metric] | OF_A_SCRAPE
        if query in QUERIES:
            chosen = {name for name, value in matchers.items() if value == f"${name}"}
            assert chosen == {"job", "instance"} | ({"model"} & exposed[metric])


def test_every_metric_is_shown_or_left_out_on_purpose(exposed: Exposed) -> None:
    names, queries = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed}, " ".join(QUERIES)
    left_out = {name for name in names if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", queries)}
    assert left_out == {"process_virtual_memory_bytes"}  # for address space says nothing of a process


def test_every_panel_says_what_it_shows_asks_the_chosen_source_and_names_labels_that_its_query_leaves() -> None:
    (source,) = read("compose/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    choice, asked = VARIABLES["datasource"], {"type": source["type"], "uid": "${datasource}"}
    first = {"text": source["name"], "value": source["uid"]}  # the provisioned one
    assert choice.items() >= {"type": "datasource", "query": source["type"], "current": first}.items()
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
    assert re.fullmatch("(row (panel )+)+", kinds)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_an_alert_says_what_is_wrong_by_labels_that_its_query_leaves_and_has_its_test() -> None:
    for rule in ALERTS:
        text = " ".join(rule["annotations"].values())
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert "$labels" in text or "$value" in text, rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= leaves(rule["expr"]), rule["alert"]
    tests = yaml.safe_load((HERE / "alerts.yml").read_text())["tests"]
    cases = [(case["alertname"], bool(case.get("exp_alerts"))) for test in tests for case in test["alert_rule_test"]]
    assert {*cases} == {(rule["alert"], raised) for rule in ALERTS for raised in (True, False)}


def test_prometheus_parses_every_query_and_rule_and_raises_each_alert_when_it_should(tmp_path: Path) -> None:
    rules = [{"record": f"query:{index}", "expr": query} for index, query in enumerate(QUERIES)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", "--lint-fatal", tmp_path / "rules.yml", DEPLOY / "prometheus" / "rules.yml")
    promtool("test", "rules", HERE / "alerts.yml")


def test_the_autoscaler_sees_the_work_that_waits_by_metrics_that_there_are(exposed: Exposed, tmp_path: Path) -> None:
    names = set(re.findall(r"spikeserve_\w+", ADAPTER["seriesQuery"] + ADAPTER["metricsQuery"]))
    assert {name for name in names if "model" not in exposed[name]} == {"spikeserve_worker_threads"}
    of_pods = {"<<.GroupBy>>": "pod", "<<.LabelMatchers>>": 'namespace="n",pod=~".+"'}
    query = re.sub("<<.*?>>", lambda place: of_pods[place[0]], ADAPTER["metricsQuery"])
    (tmp_path / "queue.yml").write_text((HERE / "queue.yml").read_text().replace("QUERY", query))
    promtool("test", "rules", tmp_path / "queue.yml")
