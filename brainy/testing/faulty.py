"""A store that fails on command, and one that lies about conditions."""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from brainy.clock import Clock, SystemClock
from brainy.errors import UnavailableError
from brainy.store.base import ObjectMeta, ObjectStore, PutOutcome, PutState, StoredObject


class Fault(enum.Enum):
    """What happens to one call."""

    #: Conditional writes: carried out, but answered UNKNOWN. Others: carried out, but raise UnavailableError.
    LANDED_UNKNOWN = "landed-unknown"
    #: Conditional writes: not carried out, answered UNKNOWN. Others: not carried out, raise UnavailableError.
    LOST_UNKNOWN = "lost-unknown"
    #: Conditional writes: carried out, but answered LOST, as after a retry inside a client library.
    LANDED_LOST = "landed-lost"
    #: Raises UnavailableError without doing anything.
    UNAVAILABLE = "unavailable"


@dataclass(kw_only=True, slots=True)
class Plan:
    """The faults of the calls to come."""

    #: get, get_range, get_many, put, put_if_absent, put_if_match, delete, list; "put*" is every write.
    kind: str = "*"
    key_prefix: str = ""
    fault: Fault | None = None
    delay_seconds: float = 0.0
    #: How many calls it applies to; -1 for all.
    times: int = 1
    #: Waited for before the call goes on.
    gate: asyncio.Event | None = None
    #: Called before the call goes on, for a test that lets another party act in between.
    before: Callable[[], object] | None = None

    def applies(self, kind: str, key: str) -> bool:
        """Whether a call meets this plan."""
        wanted = self.kind == "*" or self.kind == kind or (self.kind == "put*" and kind.startswith("put"))
        return wanted and self.times != 0 and key.startswith(self.key_prefix)


@dataclass(kw_only=True, slots=True)
class Journal:
    """What was asked of the store, in order."""

    calls: list[tuple[str, str]] = field(default_factory=list)

    def keys(self, kind: str) -> list[str]:
        """Return the keys of the calls of one kind."""
        return [key for called, key in self.calls if called == kind]


class FaultyStore:
    """Passes calls on to ``inner``, except where a plan says otherwise. The first plan that applies is used.

    store = FaultyStore(MemoryStore())
    store.plan(kind="put_if_absent", fault=Fault.LANDED_UNKNOWN)
    """

    def __init__(self, inner: ObjectStore, *, clock: Clock | None = None) -> None:
        self.inner = inner
        self.journal = Journal()
        self._clock = clock or SystemClock()
        self._plans: deque[Plan] = deque()

    def plan(
        self,
        *,
        kind: str = "*",
        key_prefix: str = "",
        fault: Fault | None = None,
        delay_seconds: float = 0.0,
        times: int = 1,
        gate: asyncio.Event | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Add a plan behind those that are already there."""
        self._plans.append(
            Plan(
                kind=kind,
                key_prefix=key_prefix,
                fault=fault,
                delay_seconds=delay_seconds,
                times=times,
                gate=gate,
                before=before,
            )
        )

    def heal(self) -> None:
        """Drop every plan."""
        self._plans.clear()

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        await self._reading("get", key)
        return await self.inner.get(key)

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        await self._reading("get_range", key)
        return await self.inner.get_range(key, start, length)

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects; a planned fault stands in the place of the object it hits."""
        faults: dict[int, UnavailableError] = {}
        for place, key in enumerate(keys):
            try:
                await self._reading("get_many", key)
            except UnavailableError as error:
                faults[place] = error
        found = list(await self.inner.get_many(keys, concurrency=concurrency))
        return [faults.get(place, item) for place, item in enumerate(found)]

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        fault = await self._meet("put", key)
        if fault in (Fault.UNAVAILABLE, Fault.LOST_UNKNOWN):
            raise _unavailable("put", key)
        etag = await self.inner.put(key, body, user_metadata=user_metadata)
        if fault is not None:
            raise _unavailable("put", key)
        return etag

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""
        fault = await self._meet("put_if_absent", key)
        if (answer := _before_write(fault, "put_if_absent", key)) is not None:
            return answer
        return _after_write(fault, await self.inner.put_if_absent(key, body))

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``."""
        fault = await self._meet("put_if_match", key)
        if (answer := _before_write(fault, "put_if_match", key)) is not None:
            return answer
        return _after_write(fault, await self.inner.put_if_match(key, body, etag))

    async def delete(self, key: str) -> None:
        """Remove the object."""
        fault = await self._meet("delete", key)
        if fault in (Fault.UNAVAILABLE, Fault.LOST_UNKNOWN):
            raise _unavailable("delete", key)
        await self.inner.delete(key)
        if fault is not None:
            raise _unavailable("delete", key)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of objects in key order; every page meets the plans."""
        await self._reading("list", prefix)
        async for page in self.inner.list(prefix, start_after=start_after):
            yield page
            await self._reading("list", prefix)

    async def close(self) -> None:
        """Close the store below."""
        await self.inner.close()

    async def _reading(self, kind: str, key: str) -> None:
        if await self._meet(kind, key) is not None:
            raise _unavailable(kind, key)

    async def _meet(self, kind: str, key: str) -> Fault | None:
        self.journal.calls.append((kind, key))
        for plan in self._plans:
            if not plan.applies(kind, key):
                continue
            plan.times -= plan.times > 0
            if plan.before is not None:
                plan.before()
            if plan.gate is not None:
                await plan.gate.wait()
            if plan.delay_seconds:
                await self._clock.sleep(plan.delay_seconds)
            return plan.fault
        return None


class UnconditionalStore(FaultyStore):
    """Ignores every condition, as some S3 look-alikes do: the negative case of the capability probe."""

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Write, whatever is there."""
        return PutOutcome(state=PutState.WON, etag=await self.inner.put(key, body))

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Write, whatever is there."""
        return PutOutcome(state=PutState.WON, etag=await self.inner.put(key, body))


def _before_write(fault: Fault | None, kind: str, key: str) -> PutOutcome | None:
    if fault is Fault.UNAVAILABLE:
        raise _unavailable(kind, key)
    return PutOutcome(state=PutState.UNKNOWN, detail="planned") if fault is Fault.LOST_UNKNOWN else None


def _after_write(fault: Fault | None, outcome: PutOutcome) -> PutOutcome:
    if fault is Fault.LANDED_UNKNOWN:
        return PutOutcome(state=PutState.UNKNOWN, detail="planned")
    if fault is Fault.LANDED_LOST:
        return PutOutcome(state=PutState.LOST, detail="planned")
    return outcome


def _unavailable(kind: str, key: str) -> UnavailableError:
    return UnavailableError("planned fault", reason="STORE_UNAVAILABLE", kind=kind, key=key)
