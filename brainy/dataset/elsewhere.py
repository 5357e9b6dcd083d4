"""Stores of other namespaces, opened when they are first asked for, with the credentials of this one."""

from __future__ import annotations

from brainy.bucket.namespace import Namespace
from brainy.clock import Clock
from brainy.config.settings import StoreSettings
from brainy.ids import Ids
from brainy.store.metered import MeteredStore
from brainy.store.opening import open_store


class Elsewhere:
    """Opens each namespace once and closes them all together."""

    def __init__(self, settings: StoreSettings, *, clock: Clock, ids: Ids) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self._opened: dict[str, MeteredStore] = {}

    def store(self, namespace: str) -> MeteredStore:
        """Return the store of a namespace; nothing is asked of it yet.

        Raises:
            InvalidRequestError: not the name of a namespace.
            PermissionDeniedError: no credentials for it are configured.
        """
        name = str(Namespace.parse(namespace))
        found = self._opened.get(name)
        if found is None:
            found = self._opened[name] = open_store(
                Namespace.parse(namespace), self.settings, clock=self.clock, ids=self.ids
            )
        return found

    async def close(self) -> None:
        """Close what was opened."""
        opened, self._opened = list(self._opened.values()), {}
        for store in opened:
            await store.close()
