"""What an operator can set: a flag, or an environment variable of the same name; a flag wins.

The fields below are the one list of them: `python -m service --help` prints it. A field `max_samples` is the flag
`--max-samples` and the variable `SPIKESERVE_MAX_SAMPLES`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticUseDefault
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.bundle.repository import PRETRAINED

ENVIRONMENT_PREFIX = "SPIKESERVE_"
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # a container's own: microseconds of all cores together, and in how many

KEYS = {  # the settings that lock the server, and what each holds
    "api_keys": "digests sha256:<64 hexadecimal digits>",
    "api_keys_file": "a file of digests",
    "admin_keys": "digests sha256:<64 hexadecimal digits>",
    "admin_keys_file": "a file of digests",
}

# Literals, and not enums, because --help shows an enum's names where a flag wants its values.
EngineSetting = Literal["auto", "event", "onnx", "torch", "reference"]
LogLevel = Literal["debug", "info", "warning", "error"]


def one_for_each_core() -> int:
    """Return how many threads there are unless the settings say so: the cores that this process may use.

    Those are no more than its affinity and the time that its control group (version 2) has of them, rounded up.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such group here, or "max", which is no quota
        return cores


def chosen_versions(setting: str, found: Iterable[int]) -> list[int]:
    """Return which of the versions that were found to serve, ascending: what the setting `versions` asks for."""
    ascending = sorted(found)
    match setting:
        case "all":
            return ascending
        case "latest":
            return ascending[-1:]
        case _:
            return [version for version in ascending if str(version) in setting.split(",")]


class Settings(BaseSettings):
    """Serves spiking neural networks from a model repository over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        cli_prog_name="python -m service",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        # What --help says of a setting that is not set, and what a flag could say for that: by default None, which is
        # what scripts write by mistake, and which would unlock the server.
        cli_parse_none_str="<not set>",
    )

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one and logs it.")
    repository: Path = Field(
        PRETRAINED, description="The model repository, a folder of <name>/<version>/; by default what ships with it."
    )
    default_model: str | None = Field(
        None, description="The model that POST /predict asks; not needed where there is just one."
    )
    versions: str = Field(
        "latest", description="Which versions of each model to serve: latest, all, or some, such as 1,3."
    )
    poll_seconds: float = Field(
        0.0, ge=0, description="How often to look for new versions in the repository; 0 never looks by itself."
    )
    engine: EngineSetting = Field(
        "auto", description="What runs the networks; auto is event on the CPU and torch on CUDA."
    )
    device: str = Field("cpu", description="Where the networks run: cpu, cuda or cuda:<index>; cuda needs torch.")
    threads: int = Field(
        default_factory=one_for_each_core,
        ge=1,
        le=1024,
        description="How many requests run at once, each on one thread.",
    )
    api_keys: str | None = Field(
        None, description="The keys that clients may use, each as its digest sha256:<hex>, separated by commas."
    )
    api_keys_file: Path | None = Field(None, description="A file with the digests of clients' keys, one a line.")
    admin_keys: str | None = Field(
        None, description="The keys that may load and unload models as well, given as those of clients are."
    )
    admin_keys_file: Path | None = Field(None, description="A file with the digests of admins' keys, one a line.")
    public_metrics: bool = Field(False, description="Whether /metrics is answered without a key where keys are set.")
    workers: int = Field(
        1, ge=1, le=1024, description="How many processes serve the port; each has its own threads, queues and models."
    )
    max_queue: int = Field(
        256,
        ge=1,
        description="How many requests may wait for one version of a model; more are answered 503 at once.",
    )
    request_timeout_ms: int = Field(
        30_000,
        ge=1,
        description="How long a request may take once its headers are read, or it is answered 504; the header "
        "X-Request-Timeout-Ms may ask for less.",
    )
    max_batch: int = Field(
        64,
        ge=1,
        description="The most samples in one run of an engine; on the CPU fewer, where so many are expected to take "
        "long.",
    )
    max_batch_delay_ms: float = Field(
        2.0,
        ge=0,
        description="For onnx and torch, how long a request may wait for others to share its run while another run "
        "is going.",
    )
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="The largest request body, in bytes.")
    max_pending_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="The most bytes that the bodies of all requests in progress and all unread answers may hold "
        "together; a request beyond that is answered 503 at once. Bodies of at most 64 KiB are not counted.",
    )
    header_seconds: float = Field(
        10, gt=0, le=3600, description="How long a request's headers may take to arrive; then it is answered 408."
    )
    body_seconds: float = Field(
        30, gt=0, le=3600, description="How long a request's body may take to arrive; then it is answered 408."
    )
    answer_seconds: float = Field(
        30,
        gt=0,
        le=3600,
        description="How long a client may take to read a long answer; then its connection ends.",
    )
    max_samples: int = Field(1024, ge=1, description="The most samples in one request.")
    max_time_steps: int = Field(1000, ge=1, description="The most time steps that a request may run for.")
    max_values: int = Field(
        2**26,
        ge=1,
        description="The most work in one request: samples × time steps × the width of the model's widest layer.",
    )
    max_neuron_steps: int = Field(
        2**27, ge=1, description="The most work in one request: samples × time steps × the model's neurons."
    )
    max_recorded_values: int = Field(
        1_000_000,
        ge=1,
        description="The most that `return` may record: samples × time steps × neurons, rasters and membranes each.",
    )
    shutdown_seconds: int = Field(
        25, ge=0, description="How long a stopping server waits for the requests that it has accepted."
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        description="The least time for which a stopping server keeps its port open and answers 503, so that load "
        "balancers notice.",
    )
    strict_readiness: bool = Field(
        True,
        description="Whether the server is ready only once every model that was there at its start answers; otherwise "
        "it is as soon as one does.",
    )
    stuck_seconds: float = Field(
        30.0,
        gt=0,
        description="How long the worker threads may give no sign of life before the server says that it is not ready.",
    )
    trace_endpoint: str | None = Field(
        None,
        description="Where OpenTelemetry spans go, by OTLP over HTTP: http://collector:4318/v1/traces; needs the extra "
        "otel.",
    )
    log_level: LogLevel = Field("info", description="The least level that is logged.")

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: object, info: ValidationInfo) -> object:
        """Take an empty text for the default, but not for keys: an empty secret must not open the server."""
        if value != "":
            return value
        if info.field_name in KEYS:
            raise ValueError(f"Input should be {KEYS[info.field_name]}, or not set at all")
        raise PydanticUseDefault

    @field_validator("repository")
    @classmethod
    def _is_a_folder(cls, repository: Path) -> Path:
        if not repository.is_dir():
            raise ValueError("Input should be a folder that exists")
        return repository

    @field_validator("versions")
    @classmethod
    def _are_versions(cls, versions: str) -> str:
        if not re.fullmatch(r"latest|all|[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", versions):
            raise ValueError("Input should be latest, all or versions such as 1,3")
        return versions

    @field_validator("max_pending_bytes")
    @classmethod
    def _holds_a_body(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("max_body_bytes", 0):
            raise ValueError(f"Input should be at least max_body_bytes, which is {info.data['max_body_bytes']}")
        return most

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
            raise ValueError("Input should be cpu, cuda or cuda:<index>")
        return device
