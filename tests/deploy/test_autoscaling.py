"""What the autoscaler sees of a queue is the work that waits in it, by Prometheus itself on sample series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import promtool

DEPLOY = Path(__file__).parents[2] / "deploy"
ADAPTER: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yaml").read_text())
MINUTES = 5
SCRAPES = MINUTES * 4  # every 15 seconds


def query(pods: str) -> str:
    """Return what the adapter asks Prometheus for the metric of pods of one namespace."""
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
                "expr": query(pods),
                "eval_time": f"{MINUTES}m7s",  # between two scrapes, so that a minute has four in all versions
                "exp_samples": [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in expected.items()],
            }
        ],
    }
    (folder / "queue.yml").write_text(yaml.safe_dump({"tests": [test]}))
    promtool("test", "rules", str(folder / "queue.yml"))


# A request of `slow` takes 4 s (1 s of runs for 0.25 of them a scrape), and one of `quick` 1/128 s.
WORK = [
    series("inference_seconds_sum", rises(1), pod="a", model="slow", version="1", engine="event"),
    series("model_requests_total", rises(0.25), pod="a", model="slow", version="1", status="200"),
    series("inference_seconds_sum", rises(1), pod="a", model="quick", version="1", engine="event"),
    series("model_requests_total", rises(128), pod="a", model="quick", version="1", status="200"),
]


def test_what_waits_counts_by_what_it_takes(tmp_path: Path) -> None:
    waiting = [
        series("queue_depth", waits(2), pod="a", model="slow"),  # 8 s
        series("queue_depth", waits(40), pod="b", model="quick"),  # 40 / 128 s: many, and little
        series("queue_depth", waits(0), pod="c", model="quick"),
    ]
    check(tmp_path, WORK + waiting, "a|b|c", {"a": 8, "b": 0.3125, "c": 0})


def test_models_and_workers_of_a_pod_add_up_and_a_new_pod_has_the_others_price(tmp_path: Path) -> None:
    waiting = [
        series("queue_depth", waits(1), pod="new", model="slow", worker="1"),
        series("queue_depth", waits(2), pod="new", model="slow", worker="2"),
        series("queue_depth", waits(64), pod="new", model="quick", worker="2"),
    ]
    check(tmp_path, WORK + waiting, "a|new", {"new": 3 * 4 + 64 / 128})


def test_a_burst_is_averaged_over_a_minute(tmp_path: Path) -> None:
    burst = [series("queue_depth", f"0x{SCRAPES - 2} 2 0", pod="a", model="slow")]  # 8 s, at one of four scrapes
    check(tmp_path, WORK + burst, "a", {"a": 2})


def test_windows_of_sessions_are_work_too_and_what_was_refused_is_none(tmp_path: Path) -> None:
    work = [
        series("inference_seconds_sum", rises(1), pod="a", model="live", version="1", engine="event"),
        series("session_windows_total", rises(2), pod="a", model="live"),
        series("model_requests_total", rises(2), pod="a", model="live", version="1", status="200"),
        series("model_requests_total", rises(1000), pod="a", model="live", version="1", status="503"),
        series("queue_depth", waits(8), pod="a", model="live"),  # 1 s of runs for 4 answers, so 8 take 2 s
    ]
    check(tmp_path, work, "a", {"a": 2})


def test_a_model_that_has_answered_nothing_has_no_price(tmp_path: Path) -> None:
    work = [
        series("inference_seconds_sum", waits(0), pod="a", model="idle", version="1", engine="event"),
        series("model_requests_total", waits(7), pod="a", model="idle", version="1", status="200"),
        series("queue_depth", waits(1), pod="a", model="idle"),
    ]
    check(tmp_path, work, "a", {"a": 0})  # and not the NaN of 0 / 0, which would be no metric
    other = [series("queue_depth", waits(1), pod="a", model="slow")]
    check(tmp_path, WORK + work + other, "a", {"a": 4})


def test_the_autoscaler_asks_for_the_metric_that_the_adapter_makes() -> None:
    (rule,) = ADAPTER["rules"]["custom"]
    scaler = yaml.safe_load((DEPLOY / "kubernetes" / "autoscaler-queue.yaml").read_text())
    (asked,) = [each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods"]
    assert asked == rule["name"]["as"]
