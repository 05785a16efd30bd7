"""Readiness: whether the server is ready for requests and its process alive, as /health/ready and /health/live say."""

from __future__ import annotations

from spikeserve.service.catalog.catalog import Catalog, Version, VersionState
from spikeserve.service.catalog.threads import Threads
from spikeserve.service.errors import NotReady
from spikeserve.service.settings import Settings


class Readiness:
    """What keeps this process from being ready: its versions, and threads that give no sign of life."""

    def __init__(self, catalog: Catalog, threads: Threads, settings: Settings) -> None:
        self.catalog = catalog
        self.threads = threads
        self.settings = settings
        self.deadline = settings.request_timeout_ms / 1000  # the longest of a request, in seconds
        self.first_load_over = False  # whether every version of the start is loaded or has failed
        self.awaited = set(catalog.models)  # models of the start that had no ready version yet, and were not unloaded

    def check(self) -> None:
        """Raise NotReady, with a sentence for each version that keeps the server from being ready, or ShuttingDown.

        The server is not ready until every version of the start is loaded or has failed. After that it is not ready
        while no model has a ready version, or, with `strict_readiness`, while a model of the start has never had one. A
        model that is added later does not make the server unready.
        """
        self.catalog.check_open()
        if not self.catalog.models:
            raise NotReady("no model is loaded")
        every = [entry for entries in self.catalog.models.values() for entry in entries.values()]
        loading = [entry for entry in every if entry.state is VersionState.LOADING and not self.first_load_over]
        if unready := loading or self._unready():
            raise NotReady("; ".join(entry.why_not_ready for entry in unready))
        self._check_threads(self.deadline, "")

    def _unready(self) -> list[Version]:
        """Return each version of the models without a ready version that keep the server from being ready."""
        models = self.catalog.models
        unready = [name for name in models if all(entry.model is None for entry in models[name].values())]
        if len(unready) < len(models):  # some answer
            unready = [name for name in unready if self.settings.strict_readiness and name in self.awaited]
        return [entry for name in unready for entry in models[name].values()]

    def check_live(self) -> None:
        """Raise NotReady if all threads of this process are held by work that does not end: only a restart helps.

        A run is asked to stop at the deadline of its requests, and has had as long again to do so.
        """
        self._check_threads(2 * self.deadline, ", although no request may take so long: restart the server")

    def _check_threads(self, seconds: float, addition: str) -> None:
        # Importing libraries during the first load can block threads for seconds.
        if self.first_load_over and self.threads.stuck(seconds):
            raise NotReady(f"the worker threads have given no sign of life for more than {seconds:g} s{addition}")
