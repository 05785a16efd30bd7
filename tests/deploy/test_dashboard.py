"""The dashboard's queries, and the autoscaler's metric, are of what the service exposes once it was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from models.repository import PRETRAINED
from service.openapi import ZERO
from tests.service.conftest import serving

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "spikeserve.json").read_text())
WORDS = {"sum", "by", "rate", "histogram_quantile", "label_values"}  # of PromQL and Grafana, as the dashboard has them
BY_PROMETHEUS = {"instance", "job"}  # labels that a scrape adds


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["query"]["query"]


def metrics_of(query: str) -> set[str]:
    """Return the names in a query that are metrics: not within braces, brackets or `by (…)`, and no words of PromQL."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)|, \w+\)$", "", query)
    return set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - WORDS


def labels_of(query: str) -> set[str]:
    """Return the labels that a query selects or groups by."""
    grouped = re.findall(r"by \(([^)]*)\)", query) + re.findall(r", (\w+)\)$", query)
    return {name for group in grouped for name in group.split(", ")} | set(re.findall(r"(\w+)=~?\"", query))


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The labels of each sample that the service exposes after one request."""
    with serving(PRETRAINED) as client:
        assert client.post("/predict", json={"inputs": [ZERO]}).status_code == 200
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_a_query_is_taken_apart() -> None:
    query = 'sum by (le, model) (rate(a_total{model=~"$model"}[$__rate_interval])) / b{c="d"}'
    assert metrics_of(query) == {"a_total", "b"}
    assert labels_of(query) == {"le", "model", "c"}
    assert metrics_of("label_values(a_b, model)") == {"a_b"}
    assert labels_of("label_values(a_b, model)") == {"model"}


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_a_query_asks_for_what_there_is(exposed: dict[str, set[str]], query: str) -> None:
    assert metrics_of(query)
    assert metrics_of(query) <= exposed.keys()
    for name in metrics_of(query):
        assert labels_of(query) <= exposed[name] | BY_PROMETHEUS


def test_a_legend_names_labels_that_its_query_leaves() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = labels_of(target["expr"]) if " by (" in target["expr"] else named & BY_PROMETHEUS
            assert named <= grouped, panel["title"]


def test_panels_do_not_overlap_and_ask_the_provisioned_source() -> None:
    (source,) = yaml.safe_load((DEPLOY / "compose/grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_autoscaler_goes_by_a_metric_that_there_is(exposed: dict[str, set[str]]) -> None:
    scaler = yaml.safe_load((DEPLOY / "kubernetes" / "autoscaler-queue.yaml").read_text())
    names = [each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"]]
    assert names
    assert set(names) <= exposed.keys()
    assert all(name in (DEPLOY / "README.md").read_text() for name in names)
