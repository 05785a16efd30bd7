"""Which engine serves a bundle: the one that is set, or the default with a fallback that says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import structlog

from spikeserve.models.bundle.repository import ModelRepository
from spikeserve.models.engines import EngineName
from spikeserve.models.engines.event.cores import shared
from spikeserve.models.engines.event.engine import EventEngine
from spikeserve.models.engines.onnx.engine import OnnxEngine
from spikeserve.models.errors import EngineUnavailable
from spikeserve.service.catalog.engine_choice import check_device, engine_for
from spikeserve.service.catalog.loaded import LoadedModel, verify
from spikeserve.service.settings import EngineSetting, Settings


def test_the_settings_name_every_engine() -> None:
    assert EngineSetting.__args__ == ("auto", *EngineName)  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", list(EngineName))
def test_an_engine_that_is_set_is_the_one_that_runs(repository: Path, engine: EngineName) -> None:
    settings = Settings.model_validate({"repository": repository, "engine": engine.value})
    assert engine_for(ModelRepository(repository).read("toy"), settings).name == engine


def test_runs_of_the_event_engine_share_the_threads_of_the_server(repository: Path) -> None:
    settings = Settings(repository=repository, threads=3)
    engine = LoadedModel.load("toy", 1, settings, verify("toy", 1, settings)).engine
    assert isinstance(engine, EventEngine)
    assert engine.cores is shared(3)


def test_an_engine_that_counts_no_cores_runs_each_call_on_one_thread(repository: Path) -> None:
    settings = Settings(repository=repository, threads=3, engine="onnx")
    engine = engine_for(ModelRepository(repository).read("toy"), settings, settings.threads)
    assert isinstance(engine, OnnxEngine)
    assert engine.session.get_session_options().intra_op_num_threads == 1


def test_auto_is_event(repository: Path) -> None:
    assert engine_for(ModelRepository(repository).read("toy"), Settings(repository=repository)).name == "event"


@pytest.mark.parametrize(
    ("missing", "fallbacks"),
    [
        (["numba"], ["onnx"]),
        (["numba", "onnxruntime"], ["onnx", "reference"]),
        (["numba", "onnx"], ["onnx", "reference"]),
    ],
)
def test_auto_falls_back_to_what_is_there_and_logs_why(
    repository: Path, monkeypatch: pytest.MonkeyPatch, missing: list[str], fallbacks: list[str]
) -> None:
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    with structlog.testing.capture_logs() as entries:
        engine = engine_for(ModelRepository(repository).read("toy"), Settings(repository=repository))
    assert engine.name == fallbacks[-1]
    assert [(entry["event"], entry["model"], entry["engine"]) for entry in entries] == [
        ("engine_fallback", "toy", fallback) for fallback in fallbacks
    ]
    for package, entry in zip(missing, entries, strict=True):
        assert package in entry["reason"]


def test_a_set_engine_never_falls_back(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    settings = Settings(repository=repository, engine="onnx")
    with pytest.raises(EngineUnavailable, match="the package onnxruntime is not installed here"):
        engine_for(ModelRepository(repository).read("toy"), settings)


def test_cuda_without_torch_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineUnavailable, match="the package torch is not installed here"):
        check_device(Settings(repository=repository, device="cuda"))


def test_cuda_on_another_engine_is_named(repository: Path) -> None:
    with pytest.raises(EngineUnavailable, match="engine 'onnx' runs on 'cpu' only; use engine 'torch'"):
        check_device(Settings(repository=repository, device="cuda", engine="onnx"))
