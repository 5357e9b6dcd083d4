"""Plans in the bucket, one immutable object each.

Before: this process holds the leadership.
Steps of ``keep``: 1. create ``migrations/plans/<id>.json`` unless it exists; 2. on anything but a win read it back.
After: the plan that is there is the plan, whoever wrote it.
If it crashes at step 1: it exists or it does not; a repeated call finds it, or writes it.
Cancel safety: as a crash.
"""

from __future__ import annotations

from collections.abc import Sequence

from brainy.bucket import layout
from brainy.clock import Clock
from brainy.errors import AlreadyExistsError, NotFoundError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy_coordinator.migration.planning.plan import Plan

_ATTEMPTS = 5


class Plans:
    """The plans of one namespace."""

    def __init__(self, store: ObjectStore, *, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def load(self, plan_id: str) -> Plan | None:
        """Read a plan, or None.

        Raises:
            CorruptDataError: it was altered.
            PreconditionError: written by newer software.
        """
        key = layout.migration_plan(plan_id)
        found = await self._store.get(key) if key is not None else None
        return None if found is None else Plan.decode(found.body, key=found.key)

    async def list(self) -> Sequence[Plan]:
        """Read every plan. Errors as ``load``."""
        keys = [meta.key async for page in self._store.list(layout.PLANS) for meta in page]
        found: list[Plan] = []
        for stored in await self._store.get_many(keys):
            if isinstance(stored, Exception):
                raise stored
            if stored is not None:
                found.append(Plan.decode(stored.body, key=stored.key))
        return found

    async def get(self, plan_id: str) -> Plan:
        """Read a plan.

        Raises:
            NotFoundError: there is none of that id.
        """
        found = await self.load(plan_id)
        if found is None:
            raise NotFoundError("no such plan", remedy="make one with brainy migrate plan", plan=plan_id)
        return found

    async def keep(self, plan: Plan) -> Plan:
        """Store a plan, and return the one that is stored under its id.

        Raises:
            AlreadyExistsError: the id stands for a plan of something else.
            UnavailableError: the store does not say whether it was written.
        """
        key = layout.migration_plan(plan.id)
        if key is None:
            raise ValueError(f"not a plan's id: {plan.id}")
        body = plan.encode()
        for attempt in range(_ATTEMPTS):
            if (await self._store.put_if_absent(key, body)).won:
                return plan
            found = await self.load(plan.id)
            if found is not None:
                if not found.request.same_wish(plan.request):
                    raise AlreadyExistsError(
                        "the request id was used for another plan", remedy="use a fresh request id", plan=plan.id
                    )
                return found
            await self._clock.sleep(self._ids.jitter(0.0, 0.1 * 2.0**attempt))
        raise UnavailableError("the store does not say whether a plan was written", reason="STORE_UNAVAILABLE", key=key)
