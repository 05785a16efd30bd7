"""Applications that the tests deploy on Ray Serve, from deploy/ray/serve.yaml, and what becomes of them."""

from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any

import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema, ServeInstanceDetails

from tests.serving import ROOT


def from_file() -> dict[str, Any]:
    """Read deploy/ray/serve.yaml; raises pydantic's ValidationError for what Ray does not know."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    ServeDeploySchema.model_validate(config)
    return config


def deploy(args: Mapping[str, Any], environment: Mapping[str, str] | None = None, **options: Any) -> None:
    """Deploy the application of the file under the path /app, with these `args`, and `options` of the deployment.

    It has as many replicas as `num_replicas` says, by default one, unless `autoscaling_config` is given.
    """
    (app,) = from_file()["applications"]
    app |= {"name": "app", "route_prefix": "/app"}
    app["args"] |= {"engine": "reference", "log_level": "error", **{name: str(value) for name, value in args.items()}}
    (deployment,) = app["deployments"]
    if "autoscaling_config" not in options:
        del deployment["autoscaling_config"]
        deployment["num_replicas"] = 1
    deployment |= {"graceful_shutdown_wait_loop_s": 0.1, **options}
    deploy_app(app, environment or {})


def deploy_app(app: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Deploy an application, whose replicas have these variables, as `serve deploy` does by way of the dashboard.

    The dashboard does not run here. Applications that were deployed before are ended.
    """
    variables = {"PYTHONPATH": str(ROOT), **environment}
    schema = ServeDeploySchema.model_validate({"applications": [{**app, "runtime_env": {"env_vars": variables}}]})
    _get_global_client().deploy_apps(schema)


def details() -> ServeInstanceDetails:
    """Return all that Ray says about what is deployed."""
    return ServeInstanceDetails.model_validate(_get_global_client().get_serve_details())


def is_running(name: str = "app") -> bool:
    """Return whether an application is as it was deployed; fails where it cannot be."""
    app = serve.status().applications.get(name)
    assert app is None or app.status != "DEPLOY_FAILED", app
    return app is not None and app.status == "RUNNING"


def replica_states(name: str = "app") -> dict[str, int]:
    """Return how many replicas of an application are in each state."""
    return dict(serve.status().applications[name].deployments["spikeserve"].replica_states)


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask again and again until it is so."""
    end = monotonic() + 240  # a first replica compiles the kernels
    while not condition():
        assert monotonic() < end
        sleep(0.05)
