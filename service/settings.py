"""The settings: flags, and environment variables of the same names; a flag overrides the variable.

`spikeserve serve --help` and docs/configuration.md are made from the fields below, and the ports of protocols that are
plugins. The field `max_values` is the flag `--max-values` and the variable `SPIKESERVE_MAX_VALUES`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticUseDefault
from pydantic_settings import BaseSettings, SettingsConfigDict

from spikeserve.models.bundle.copies import CACHE, cache_of
from spikeserve.models.bundle.remote import Url
from spikeserve.models.bundle.repository import PRETRAINED
from spikeserve.models.door import of_kind
from spikeserve.models.engines.declared import ENGINES
from spikeserve.models.spec.price import LoadLimits

HEADER_SECONDS = 10.0
ENVIRONMENT_PREFIX = "SPIKESERVE_"
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # a container's CPU limit: microseconds of CPU time per period, and the period

KEYS = {"api_keys", "admin_keys"}  # the settings that hold API keys
MAX_ANSWER_BYTES = 64 * 2**20
REMOVED = {  # settings of earlier versions, and what stands for each
    "api_keys_file": "api_keys takes @ and the file",
    "admin_keys_file": "admin_keys takes @ and the file",
    "max_answer_bytes": "it is 64 MiB, and no more than max_pending_bytes",
    "max_batch_delay_ms": "it is 2 ms",
    "max_events": "it is an eighth of max_body_bytes",
    "max_neuron_steps": "it is twice max_values",
    "max_recorded_values": "it is a million",
    "max_samples": "it is 1024",
    "max_session_bytes": "it is half of max_pending_bytes",
    "max_session_events": "it is a sixteenth of max_values",
    "repository_cache": f"the variable {CACHE} alone says it",
    "repository_seconds": "it is 600",
    "trace_endpoint": "OpenTelemetry's variable OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says it",
}
PLUGGED = {  # settings that a plugin of this project brings, and what is missing without it
    "grpc_port": "the plugin grpc brings it, which is not in this installation, or not in SPIKESERVE_PLUGINS"
}

# An origin as browsers write it: a scheme, a host, and a port unless it is the scheme's own.
ORIGIN = re.compile(
    r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?"
)

# Literals rather than enums, because --help shows an enum's names although the flag takes its values.
if TYPE_CHECKING:
    EngineSetting = str
else:
    EngineSetting = Literal["auto", *ENGINES]
LogLevel = Literal["debug", "info", "warning", "error"]


def available_cores() -> int:
    """Return how many cores this process may use, which is the default number of threads.

    They are limited by its CPU affinity and by the CPU limit of its control group (version 2), rounded up.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
    try:
        quota, period = CPU_MAX.read_text().split()
        return min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # there is no control group, or its limit is "max"
        return cores


def chosen_versions(setting: str, versions: Iterable[int]) -> list[int]:
    """Return those `versions` that a `setting` of their name (`all`, `latest`, or numbers) selects, ascending."""
    ascending = sorted(versions)
    if setting == "all":
        return ascending
    if setting == "latest":
        return ascending[-1:]
    return [version for version in ascending if str(version) in setting.split(",")]


class Settings(BaseSettings):
    """Serves spiking neural networks from a model repository over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        frozen=True,
        cli_prog_name="spikeserve serve",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        # --help shows this for a setting without a value, and a flag with this text means no value. The default text,
        # "None", could be written by a faulty script by mistake, and would then remove a server's API keys.
        cli_parse_none_str="<not set>",
    )

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on; 0 takes a free one and logs it.")
    repository: Path | Url = Field(
        PRETRAINED,
        description="The model repository: a folder of <name>/<version>/, or a URL such as s3://bucket/models.",
    )
    gallery: bool = Field(
        False,
        description="Whether the models that ship, which `spikeserve models` lists, can be loaded beside those of "
        "the repository, by name or on the page.",
    )
    default_model: str | None = Field(
        None,
        description="The model of POST /predict; by default that of the repository's file `default`, or the only one.",
    )
    versions: str = Field(
        "latest", description="The versions of each model that are served: latest, all, or a list such as 1,3."
    )
    poll_seconds: float = Field(
        0.0, ge=0, description="The seconds between looks for new versions in the repository; 0 turns this off."
    )
    engine: EngineSetting = Field(
        "auto", description="The engine that runs the networks; auto is event on the CPU and torch on CUDA."
    )
    device: str = Field("cpu", description="Where the networks run: cpu, cuda or cuda:<index>; cuda needs torch.")
    threads: int = Field(
        default_factory=available_cores,
        ge=1,
        le=1024,
        description="How many runs of the engines go at the same time in one process; on event, a large batch is "
        "divided among threads that no other run needs.",
    )
    api_keys: str | None = Field(
        None,
        description="The digests of clients' keys, sha256:<hex>, separated by commas; @<file> stands for those of a "
        "file, one per line.",
    )
    admin_keys: str | None = Field(
        None, description="Likewise of admins' keys, with which models can also be loaded and unloaded."
    )
    allowed_origins: str | None = Field(
        None,
        description="The origins of web pages, beside its own, that may use this server, such as "
        "https://app.example,http://localhost:5173, or * for all.",
    )
    public_metrics: bool = Field(False, description="Whether /metrics needs no key even if keys are set.")
    workers: int = Field(
        1, ge=1, le=1024, description="How many processes serve the port; each has its own threads, queues and models."
    )
    max_queue: int = Field(
        256, ge=1, description="How many requests may wait for one version of a model; more are answered 503 at once."
    )
    request_timeout_ms: int = Field(
        30_000,
        ge=1,
        description="The milliseconds that a request may take after its headers; then it is answered 504. The header "
        "X-Request-Timeout-Ms says less.",
    )
    max_batch: int = Field(
        64,
        ge=1,
        description="The most samples in one run of an engine; on the CPU fewer where so many would take long.",
    )
    max_body_bytes: int = Field(
        16 * 2**20,
        ge=1,
        description="The largest request body, in bytes. A recording may have an eighth as many events.",
    )
    max_pending_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="The memory budget, in bytes, of all bodies and answers, and of requests sent ahead of their "
        "answers, each over 64 KiB; beyond it a request is answered 503. The states of all sessions may take half as "
        "much beside it. One answer may take no more, and at most 64 MiB; else it is 413.",
    )
    client_seconds: float = Field(
        30,
        gt=0,
        le=3600,
        description="How many seconds a client may take to send its headers (at most 10) or a body, else 408, or to "
        "read a long answer; then its connection is closed.",
    )
    max_time_steps: int = Field(1000, ge=1, description="The most time steps of a request.")
    max_values: int = Field(
        2**26,
        ge=1,
        description="The most work in one request: samples × time steps × the width of the model's widest layer, or "
        "half of its neurons. Beyond a sixteenth of it in events or values a second, a session is read from more "
        "slowly.",
    )
    load_seconds: float = Field(
        60,
        gt=0,
        le=86_400,
        description="How many seconds loading and verifying a version may take; then it is stopped and has failed.",
    )
    max_model_bytes: int = Field(
        LoadLimits.model_bytes,
        ge=1,
        description="The most memory, in bytes, that loading and verifying a version may take, priced and measured.",
    )
    max_sessions: int = Field(
        1024, ge=1, description="The most open sessions of one process; another one is answered 503."
    )
    max_client_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="The share of max_sessions, and of the memory of their states, that one API key or, without keys, "
        "one address may take; then 503. Behind a proxy all clients may have one address: set keys there, or 1.",
    )
    session_idle_seconds: float = Field(
        60,
        gt=0,
        le=86_400,
        description="How many seconds a session may be silent; then it is given its state and ends.",
    )
    shutdown_seconds: int = Field(
        25, ge=0, description="The grace period: how many seconds a stopping server waits for its requests."
    )
    drain_seconds: float = Field(
        0.0,
        ge=0,
        description="How many seconds a stopping server answers new requests 503, so that load balancers notice.",
    )
    strict_readiness: bool = Field(
        True,
        description="Whether the server is ready only once every model of its start has loaded; otherwise one is "
        "enough, once all were tried.",
    )
    log_level: LogLevel = Field("info", description="The lowest level that is logged.")

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_not_set(cls, value: object, info: ValidationInfo) -> object:
        """Take an empty text as the default, except for keys: an empty secret must not open the server."""
        if value != "":
            return value
        if info.field_name in KEYS:
            raise ValueError("Input should be digests sha256:<64 hexadecimal digits>, or not set at all")
        raise PydanticUseDefault

    @field_validator("repository")
    @classmethod
    def _is_a_folder_or_url(cls, repository: Path | str) -> Path | str:
        if isinstance(repository, Path) and not repository.is_dir():
            raise ValueError("Input should be a folder that exists, or a URL such as s3://bucket/models")
        return repository

    @field_validator("versions")
    @classmethod
    def _are_versions(cls, versions: str) -> str:
        if not re.fullmatch(r"latest|all|[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", versions):
            raise ValueError("Input should be latest, all or versions such as 1,3")
        return versions

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: str | None) -> str | None:
        if origins is None:
            return None
        listed = [each.strip().lower() for each in origins.split(",")]
        if listed != ["*"] and not all(map(ORIGIN.fullmatch, listed)):
            raise ValueError("Input should be * or origins such as https://app.example, with a port but no path")
        return ",".join(listed)

    @property
    def origins(self) -> tuple[str, ...]:
        """The allowed origins, as browsers write them; `*` stands for all."""
        return tuple(self.allowed_origins.split(",")) if self.allowed_origins else ()

    @property
    def header_seconds(self) -> float:
        """How many seconds a request's headers may take to arrive; then it is answered 408."""
        return min(HEADER_SECONDS, self.client_seconds)

    @field_validator("max_pending_bytes")
    @classmethod
    def _holds_a_body(cls, budget: int, info: ValidationInfo) -> int:
        if budget < info.data.get("max_body_bytes", 0):
            raise ValueError(f"Input should be at least max_body_bytes, which is {info.data['max_body_bytes']}")
        return budget

    @property
    def answer_bytes(self) -> int:
        """The most bytes that an answer may take, with the arrays that it is made from."""
        return min(MAX_ANSWER_BYTES, self.max_pending_bytes)

    @property
    def session_bytes(self) -> int:
        """The most bytes that the states of all sessions in one process may take."""
        return self.max_pending_bytes // 2

    @property
    def session_events(self) -> float:
        """How many events or values a second one session may send."""
        return self.max_values / 16

    @property
    def url(self) -> str | None:
        """The URL of the repository, None where it is a folder."""
        return self.repository if isinstance(self.repository, str) else None

    @property
    def folder(self) -> Path:
        """The folder of bundles on this machine: the repository, or the copies of one that is elsewhere."""
        return self.repository if isinstance(self.repository, Path) else cache_of(self.repository)

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", device):
            raise ValueError("Input should be cpu, cuda or cuda:<index>")
        return device


def with_protocols() -> type[Settings]:
    """Return the settings with `<name>_port` for each protocol among the plugins; raises InvalidInput for a bad one."""
    ports: dict[str, Any] = {}
    for name, each in of_kind("protocol").items():
        needs = f" It needs the extra {each.extra}." if each.extra else ""
        says = f"The port for {each.says}, at the same address; 0 means none.{needs}"
        ports[f"{name}_port"] = int, Field(0, ge=0, le=65535, description=says)
    return create_model("Settings", __base__=Settings, __doc__=Settings.__doc__, **ports)
