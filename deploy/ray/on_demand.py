"""Models that a replica loads when a request names them, and unloads when it has too many: Ray Serve's multiplexing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

from starlette.types import ASGIApp, Receive, Scope, Send

from spikeserve.models.errors import SpikeserveError
from spikeserve.service.catalog.loader import Loader
from spikeserve.service.errors import ModelNotFound, ServiceError, shown
from spikeserve.service.http.answers import error_response

Load = Callable[[str], Awaitable[SimpleNamespace]]

_PATH = re.compile(r"(?:/v2)?/models/([^/]+)(?:/versions/([^/]+))?(?:/.*)?|/predict")


def loading(loader: Loader) -> Load:
    """Return the function by which Ray loads a model, whose key is <name> or <name>/<version>.

    Ray unloads the model by awaiting `__del__` of what that function has returned. A version that was loaded by both
    keys stays until both are unloaded.
    """
    loaded: dict[str, list[int]] = {}  # the versions of each key that is loaded

    async def hold(name: str) -> None:
        versions = {each for key, some in loaded.items() if key.partition("/")[0] == name for each in some}
        await loader.set_versions(name, versions)

    async def load(key: str) -> SimpleNamespace:
        name, _, version = key.partition("/")

        async def unload() -> None:
            loaded.pop(key, None)
            await hold(name)

        loaded[key] = [int(version)] if version else await loader.choose(name)
        try:
            await hold(name)
        except SpikeserveError:
            await unload()
            raise
        # An attribute of the object, since Python itself would call a method __del__, outside of the event loop.
        return SimpleNamespace(__del__=unload)

    return load


class OnDemand:
    """Middleware that has the model of a request's path loaded before the request goes on."""

    def __init__(self, app: ASGIApp, loader: Loader, load: Load) -> None:
        self.app = app
        self.loader = loader
        self.load = load
        self.known: set[str] = set()  # keys that have been loaded, and so are in the repository

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Load the request's model, if need be, and pass the request on; a model that is not there is 404."""
        match = _PATH.fullmatch(scope["path"]) if scope["type"] in ("http", "websocket") else None
        name = match and (match[1] or self.loader.catalog.default)
        if match and name:
            try:
                key = "/".join(filter(None, (name, match[2])))
                await self._require(name, match[2], key)
                await self.load(key)
                self.known.add(key)
            except ServiceError as error:
                await error_response(error.status, str(error), error.headers)(scope, receive, send)
                return
        await self.app(scope, receive, send)  # the catalog finds the model before anything else can run

    async def _require(self, name: str, version: str | None, key: str) -> None:
        """Raise ModelNotFound for what is not in the repository: Ray would first unload another model for it."""
        if key in self.known:
            return
        if version is None:
            await self.loader.choose(name)
        elif version not in map(str, await self.loader.versions_of(name)):
            raise ModelNotFound(f"model {shown(name)} has no version {shown(version)} in the repository")
