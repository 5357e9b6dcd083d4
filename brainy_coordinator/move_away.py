"""A namespace of this coordinator that another cluster takes over: what became of it is looked up over there.

*Before.* The coordinator of the receiving namespace has swapped ``moving`` into the routing record here (fence), and
drains. Its commit is one swap of its own record, possible only at the epoch that ``moving`` names; that record then
carries ``arrived`` for ever.

*Steps.* While a move is undecided here, look at the other record now and then:
1. ``arrived`` names the migration: it has committed. Say so for good (``done``).
2. Else its epoch has gone past the one named: the attempt can never commit. Let writes go on.
3. Else it may still commit: wait. Writers wait too, and are answered DRAINING when their patience ends.

*After.* Of the two namespaces at most one takes writes, whoever died in between: the fence here is taken away only
where the other record has moved past the epoch at which alone it could have committed.

*Crash, cancel.* Nothing is remembered; the next leader looks again. The other coordinator does the same at once when it
can; this is for the case that it cannot.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from brainy.bucket import layout
from brainy.bucket.origin import Moving
from brainy.bucket.records import Routing
from brainy.dataset.elsewhere import Elsewhere
from brainy.errors import BrainyError
from brainy.telemetry.logs import get_logger
from brainy_coordinator.routing import RoutingRegister

_log = get_logger(__name__)

#: Our own record is read again this often, for others may have begun to take the namespace over.
_REREAD_SECONDS: Final = 5.0
#: An attempt this young is left to those who made it.
_PATIENCE_SECONDS: Final = 2.0


def outcome(moving: Moving, theirs: Routing | None) -> bool | None:
    """Return whether a move has committed; None while that is open. Pure."""
    if theirs is None:
        return None
    if theirs.arrived is not None and theirs.arrived.migration == moving.migration:
        return True
    return False if theirs.epoch > moving.epoch else None


class MoveAway:
    """Settles moves of one namespace that others began and nobody finished."""

    def __init__(self, register: RoutingRegister, elsewhere: Elsewhere, *, namespace: str) -> None:
        self._register = register
        self._elsewhere = elsewhere
        self._namespace = namespace
        self._read_at = float("-inf")
        self._undecided: tuple[Moving, float] | None = None

    async def settle(self, routing: Routing) -> Routing | None:
        """Look, if it is time to, and swap the record if the answer is known. Returns a record that was swapped.

        The register forgets what it holds where that may be outdated.
        """
        now = self._elsewhere.clock.monotonic()
        if now - self._read_at >= _REREAD_SECONDS:
            self._read_at = now
            # A store that does not answer is for those to complain about who need it.
            with suppress(BrainyError):
                routing = await self._register.load() or routing
        moving = routing.moving
        if moving is None or moving.done:
            self._undecided = None
            return None
        if self._undecided is None or self._undecided[0] != moving:
            self._undecided = (moving, now)
        if now - self._undecided[1] < _PATIENCE_SECONDS:
            return None
        self._undecided = (moving, now)
        return await self._decide(moving)

    async def _decide(self, moving: Moving) -> Routing | None:
        try:
            found = await self._elsewhere.store(moving.to).get(layout.ROUTING)
        except BrainyError as error:
            _log.warning("move_not_looked_up", namespace=self._namespace, to=moving.to, detail=error.message)
            return None
        done = outcome(moving, None if found is None else Routing.decode(found.body, key=found.key))
        # Whatever is decided, it is about the record as it is now.
        current = await self._register.load()
        if done is None or current is None or current.moving != moving:
            return None
        _log.info("move_settled", namespace=self._namespace, to=moving.to, migration=moving.migration, moved=done)
        if done:
            settled = current.model_copy(update={"moving": moving.model_copy(update={"done": True})})
        else:
            settled = current.model_copy(update={"phase": "serving", "migration": None, "moving": None})
        return await self._register.swap(current, settled)
