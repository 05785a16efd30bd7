"""Spikeserve on Ray Serve: each replica is one process of the server, with the same application.

    serve run deploy.ray.serving:application repository=/repository
    serve deploy deploy/ray/serve.yaml

The arguments are the settings of `spikeserve serve`, and `models_per_replica`: with 0, a replica loads every model when
it starts; with 8, say, it loads a model when a request names it, and keeps the eight that were asked for last.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.ray.on_demand import OnDemand, loading
from ray import serve
from spikeserve.service.app import create_app
from spikeserve.service.catalog.control import Control
from spikeserve.service.catalog.mirror import tell
from spikeserve.service.errors import LoadFailed, Misconfigured
from spikeserve.service.process.flags import read_settings
from spikeserve.service.services import Services
from spikeserve.service.settings import Settings
from spikeserve.service.telemetry import logs

PER_REPLICA = "models_per_replica"


def application(args: Mapping[str, Any]) -> serve.Application:
    """Return the application that Ray deploys; raises Misconfigured for an argument that is no setting."""
    options = {name: str(value) for name, value in args.items()}
    models = options.pop(PER_REPLICA, "0")
    if not models.isdecimal():
        raise Misconfigured(f"{PER_REPLICA} is '{models}', expected a whole number, 0 for all models")
    settings = read_settings([f"--{name.replace('_', '-')}={value}" for name, value in options.items()])
    for name, only, instead in (
        ("workers", 1, "Ray's num_replicas"),
        ("poll_seconds", 0, "user_config, or deploy again"),
    ):
        if (value := getattr(settings, name)) != only:
            raise Misconfigured(f"{name} is {value}, expected {only} on Ray: use {instead}")
    return deployment(settings, int(models)).bind()


def deployment(settings: Settings, models_per_replica: int = 0) -> serve.Deployment:
    """Return the deployment; its options, such as the number of replicas, are set by Ray's configuration."""

    def build() -> Any:  # Ray calls it in each replica
        logs.configure(settings.log_level, sys.stdout)
        app = create_app(settings, ReplicaControl)
        services: Services = app.state.services
        tell(services.loader.copied)
        if models_per_replica:
            services.loader.adopt({}, ())
            load = serve.multiplexed(loading(services.loader), max_num_models_per_replica=models_per_replica)
            app.user_middleware.append(Middleware(OnDemand, loader=services.loader, load=load))  # the innermost
        app.add_middleware(AtRoot)  # the outermost
        return app

    return serve.deployment(serve.ingress(build)(Replica), name="spikeserve")


class AtRoot:
    """Middleware that takes Ray's route prefix off a path: keys and models are looked for by the paths without it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if prefix := scope.get("root_path"):
            scope = {**scope, "root_path": "", "path": scope["path"].removeprefix(prefix) or "/"}
        await self.app(scope, receive, send)


class ReplicaControl(Control):
    """Control of a replica: clients change no models in it, so that all replicas have the same ones."""

    loads_first = True

    async def load(self, name: str) -> None:
        """Refuse: one replica alone would be changed. Raises LoadFailed."""
        raise LoadFailed(f"model '{name}' is loaded and unloaded in all replicas at once: deploy another user_config")

    async def unload(self, name: str) -> None:
        """Refuse, as `load` does."""
        await self.load(name)


class Replica:
    """One process of the server. Ray calls these methods; `app` is the application that it made by `build`."""

    app: Any

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Load the versions of `user_config`, {"versions": {name: [version, …]}}, then retire the models' other ones.

        The versions before answer meanwhile. Raises LoadFailed, by which Ray's update of the deployment fails.
        """
        for name, versions in config.get("versions", {}).items():
            await self.app.state.services.loader.set_versions(name, versions)

    async def check_health(self) -> None:
        """Raise NotReady where only a restart of this replica helps."""
        self.app.state.services.readiness.check_live()
