"""The routing record's only writer.

Before: this process holds the leadership, and has read the record (or knows that there is none).
Steps: 1. stamp the new record with epoch + 1, a fresh nonce and the leader's epoch; 2. check the invariants
against the record it replaces; 3. compare-and-swap on the ETag that was read.
After: the record is in force in the bucket; nodes learn of it by heartbeat, by poll or by ``ApplyRouting``.
If it crashes at step 1 or 2: nothing happened. At step 3: the swap landed or it did not; the next leader reads
the record and goes on from there. Nothing else is stored, so nothing can disagree.
Cancel safety: as a crash. The cached record is forgotten whenever an outcome is not certain.
"""

from __future__ import annotations

from collections.abc import Callable

from brainy.bucket import invariants, layout
from brainy.bucket.records import Routing
from brainy.clock import Clock
from brainy.errors import ConflictError, FencedError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister
from brainy.telemetry.logs import get_logger

_log = get_logger(__name__)


def open_register(store: ObjectStore, *, clock: Clock, ids: Ids) -> CasRegister[Routing]:
    """Return the compare-and-swap register of a namespace's ``routing.json``."""
    return CasRegister(
        store,
        layout.ROUTING,
        encode=Routing.encode,
        decode=lambda body: Routing.decode(body, key=layout.ROUTING),
        clock=clock,
        ids=ids,
    )


class RoutingRegister:
    """The record of one namespace, as one leader sees it."""

    def __init__(self, register: CasRegister[Routing], *, ids: Ids, leader_epoch: Callable[[], int]) -> None:
        self._register = register
        self._ids = ids
        #: Raises when this process is not the leader (any more).
        self._leader_epoch = leader_epoch
        self._held: tuple[Routing, str] | None = None
        self._known = False

    async def current(self) -> Routing | None:
        """Return the record, from memory while this process is certain to be its last writer."""
        return (self._held[0] if self._held else None) if self._known else await self.load()

    async def load(self) -> Routing | None:
        """Read the record from the bucket."""
        self.forget()
        self._held = await self._register.load()
        self._known = True
        return self._held[0] if self._held else None

    def forget(self) -> None:
        """Read the bucket next time."""
        self._held, self._known = None, False

    async def swap(self, before: Routing | None, after: Routing) -> Routing:
        """Put ``after`` in force in place of ``before``.

        ``epoch``, ``nonce`` and ``leader_epoch`` of ``after`` are set here, whatever they were.

        Returns:
            The record as written.

        Raises:
            UnavailableError: this process is not the leader (NOT_LEADER).
            FencedError: a later leader has written.
            ConflictError: the record is not ``before`` any more; look again and decide again.
            CorruptDataError: the record would break an invariant; nothing was written.
        """
        held = await self.current()
        if (held.nonce if held else None) != (before.nonce if before else None):
            raise ConflictError("the routing record has changed since it was read", namespace=after.namespace)
        leader_epoch = self._leader_epoch()
        if held is not None and held.leader_epoch > leader_epoch:
            raise FencedError(
                "a later leader has written the routing record",
                namespace=after.namespace,
                leader_epoch=leader_epoch,
                newer_epoch=held.leader_epoch,
            )
        stamped = after.model_copy(
            update={
                "epoch": 1 if held is None else held.epoch + 1,
                "nonce": self._ids.uuid(),
                "leader_epoch": leader_epoch,
            }
        )
        # model_copy does not validate; a round trip refuses what a reader would refuse.
        stamped = Routing.decode(stamped.encode(), key="routing")
        invariants.check_routing_swap(held, stamped)
        expected = self._held[1] if self._held else None
        self.forget()
        etag = await self._register.exchange(stamped, expected)
        if etag is None:
            raise ConflictError("another leader changed the routing record first", namespace=after.namespace)
        self._held, self._known = (stamped, etag), True
        _log.info(
            "routing_swapped",
            namespace=stamped.namespace,
            epoch=stamped.epoch,
            active=stamped.active,
            phase=stamped.phase,
            migration=stamped.migration,
        )
        return stamped
