"""The dashboard's queries and the alerts' are of what the service exposes once it was asked, and leave nothing out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.service.http.openapi import example
from tests.deploy.promql import AGGREGATIONS, Read, leaves, promtool, reads
from tests.serving import serving

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "spikeserve.json").read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
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


def test_a_query_is_taken_apart() -> None:
    query = 'sum by (le, model) (rate(a_total{model=~"$model", c!="d"}[$__rate_interval])) / on (d) b{c="d"} > 0.5'
    assert reads(query) == [
        Read("a_total", frozenset({"le", "model", "c"}), ("sum", "rate")),
        Read("b", frozenset({"c"}), ()),
    ]
    assert leaves(query) == {"model"}
    assert leaves("sum by (model, layer) (a) > 2 and on (model) sum by (model) (b) > 30") == {"model", "layer"}
    assert reads('label_values(a_b{job=~"$job"}, model)')[0].labels == {"job", "model"}
    with pytest.raises(ValueError, match="nothing that is known"):
        reads("a_b ; c")


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
