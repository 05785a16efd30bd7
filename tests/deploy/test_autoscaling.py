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
