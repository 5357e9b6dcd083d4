"""Whether a store keeps the promise everything rests on: conditional writes.

Several S3 look-alikes accept the condition headers and ignore them. On such a store two coordinators would both
lead and two nodes would both own a shard, so no role serves from a namespace before this probe has passed.

The objects it writes lie under ``cluster/probe/`` and are removed again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from brainy.errors import BrainyError, PreconditionError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore, PutOutcome, PutState

#: Where the probe's objects lie; ``brainy.bucket.layout.ROOT`` + "probe/".
PROBE_PREFIX = "cluster/probe/"
_RACERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise of a store, tried."""

    name: str
    passed: bool
    #: What was promised, or what went wrong.
    detail: str
    #: Whether the change logs and the locks kept in the store rest on it; otherwise only plain reads and writes do.
    conditional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store was found to keep. A store may pass and still race in rare cases; one that fails is unfit."""

    checks: tuple[Check, ...]

    @property
    def fit(self) -> bool:
        """Whether a cluster may serve from it."""
        return all(check.passed for check in self.checks)

    @property
    def store_locks_safe(self) -> bool:
        """Whether locks kept in the store exclude anybody."""
        return self.fit

    @property
    def redis_locks_safe(self) -> bool:
        """Whether locks kept in Redis may be used beside it, for jobs that guard something else than this store.

        They need of the store only that it reads back what was written. They do not make its data safe: the
        change logs would still be overwritten by a stale owner.
        """
        return all(check.passed for check in self.checks if not check.conditional)

    def first_failure(self) -> Check | None:
        """Return the first check that failed."""
        return next((check for check in self.checks if not check.passed), None)


async def examine(store: ObjectStore, ids: Ids) -> Capabilities:
    """Try every promise on fresh keys, and go on after one that is broken. Costs about 40 requests.

    Raises:
        UnavailableError, PermissionDeniedError, NotFoundError: the store could not be tried.
    """
    return await _examine(store, ids, all_of_them=True)


async def probe_conditional_writes(store: ObjectStore, ids: Ids) -> None:
    """Try the promises until one is broken: what every role does before it serves.

    Raises:
        PreconditionError: STORE_UNFIT; ``check`` names the first check that failed.
        UnavailableError, PermissionDeniedError, NotFoundError: the store could not be tried.
    """
    failed = (await _examine(store, ids, all_of_them=False)).first_failure()
    if failed is not None:
        raise PreconditionError(
            f"the store is unfit: {failed.detail}",
            reason="STORE_UNFIT",
            remedy="use a store with conditional writes: aws s3, seaweedfs, minio, ceph or a directory",
            check=failed.name,
        )


class _BrokenError(Exception):
    """A promise is not kept."""


Try = Callable[[ObjectStore, str, Ids], Awaitable[None]]


async def _examine(store: ObjectStore, ids: Ids, *, all_of_them: bool) -> Capabilities:
    base = f"{PROBE_PREFIX}{ids.short(12)}"
    checks: list[Check] = []
    for name, promise, conditional, attempt in _CHECKS:
        key = f"{base}-{name}"
        try:
            await attempt(store, key, ids)
        except _BrokenError as broken:
            checks.append(Check(name=name, passed=False, detail=str(broken), conditional=conditional))
            if not all_of_them:
                break
        else:
            checks.append(Check(name=name, passed=True, detail=promise, conditional=conditional))
        finally:
            # What was found out matters more than a leftover of a few bytes.
            with contextlib.suppress(BrainyError):
                await store.delete(key)
    return Capabilities(checks=tuple(checks))


async def _read_after_write(store: ObjectStore, key: str, ids: Ids) -> None:
    for _ in range(2):
        body = ids.nonce()
        etag = await store.put(key, body)
        found = await store.get(key)
        if found is None or found.body != body:
            raise _BrokenError("an object did not read back as written")
        if found.etag != etag:
            raise _BrokenError("an object reads back with another etag than its write was answered with")
    await store.delete(key)
    if await store.get(key) is not None:
        raise _BrokenError("an object can be read after it was deleted")


async def _list_after_write(store: ObjectStore, key: str, ids: Ids) -> None:
    await store.put(key, ids.nonce())
    if [meta.key async for page in store.list(key) for meta in page] != [key]:
        raise _BrokenError("a new object is missing in a listing")


async def _fresh_etags(store: ObjectStore, key: str, ids: Ids) -> None:
    etags = [await store.put(key, ids.nonce()) for _ in range(3)]
    if len(set(etags)) != len(etags) or not all(etags):
        raise _BrokenError("different contents have the same etag, or none")


async def _create(store: ObjectStore, key: str, ids: Ids) -> None:
    first, second = ids.nonce(), ids.nonce()
    if not await _landed(store, key, first, await store.put_if_absent(key, first)):
        raise _BrokenError("a new key was refused")
    won = _definite(await store.put_if_absent(key, second))
    found = await store.get(key)
    if won or found is None or found.body != first:
        raise _BrokenError("if-none-match was ignored and an object overwritten")


async def _create_after_delete(store: ObjectStore, key: str, ids: Ids) -> None:
    first, body = ids.nonce(), ids.nonce()
    if not await _landed(store, key, first, await store.put_if_absent(key, first)):
        raise _BrokenError("a new key was refused")
    await store.delete(key)
    if not await _landed(store, key, body, await store.put_if_absent(key, body)):
        raise _BrokenError("a key that was deleted is refused as if it existed")
    won = _definite(await store.put_if_absent(key, ids.nonce()))
    found = await store.get(key)
    if won or found is None or found.body != body:
        raise _BrokenError("if-none-match was ignored for a key that had been deleted before")


async def _replace(store: ObjectStore, key: str, ids: Ids) -> None:
    body = ids.nonce()
    etag = await store.put(key, ids.nonce())
    won = await _landed(store, key, body, await store.put_if_match(key, body, etag))
    found = await store.get(key)
    if not won or found is None or found.body != body:
        raise _BrokenError("the current etag was refused")


async def _stale(store: ObjectStore, key: str, ids: Ids) -> None:
    old_etag = await store.put(key, ids.nonce())
    body = ids.nonce()
    await store.put(key, body)
    won = _definite(await store.put_if_match(key, ids.nonce(), old_etag))
    found = await store.get(key)
    if won or found is None or found.body != body:
        raise _BrokenError("if-match with an old etag was ignored and an object overwritten")


async def _missing(store: ObjectStore, key: str, ids: Ids) -> None:
    # An ETag that certainly was one here, of an object that is gone.
    etag = await store.put(key, ids.nonce())
    await store.delete(key)
    won = _definite(await store.put_if_match(key, ids.nonce(), etag))
    if won or await store.get(key) is not None:
        raise _BrokenError("if-match created an object that does not exist")


async def _create_race(store: ObjectStore, key: str, ids: Ids) -> None:
    bodies = [ids.nonce() for _ in range(_RACERS)]
    outcomes = await asyncio.gather(*(store.put_if_absent(key, body) for body in bodies))
    await _one_winner(store, key, bodies, outcomes, "creators of one key")


async def _replace_race(store: ObjectStore, key: str, ids: Ids) -> None:
    etag = await store.put(key, ids.nonce())
    bodies = [ids.nonce() for _ in range(_RACERS)]
    outcomes = await asyncio.gather(*(store.put_if_match(key, body, etag) for body in bodies))
    await _one_winner(store, key, bodies, outcomes, "that replaced one version")


async def _one_winner(store: ObjectStore, key: str, bodies: list[bytes], outcomes: list[PutOutcome], who: str) -> None:
    # Racing, a store may leave some outcomes open; it must not tell two that they won.
    winners = [body for body, outcome in zip(bodies, outcomes, strict=True) if outcome.won]
    found = await store.get(key)
    stored = None if found is None else found.body
    # Nor may it refuse them all; one that landed and was sent again on the way is answered as if it had lost.
    if not winners and stored not in bodies and all(outcome.state is PutState.LOST for outcome in outcomes):
        raise _BrokenError(f"none of {_RACERS} {who} won")
    if len(winners) > 1 or (winners and stored != winners[0]):
        raise _BrokenError(f"{len(winners)} of {_RACERS} {who} were told that they won")


#: Name, what is promised, whether it is about conditions, how it is tried.
_CHECKS: tuple[tuple[str, str, bool, Try], ...] = (
    ("read-after-write", "reads see the latest write or delete", False, _read_after_write),
    ("list-after-write", "listings show the latest write", False, _list_after_write),
    ("fresh-etags", "each content has its own etag", True, _fresh_etags),
    ("create-if-absent", "a key that exists is not created again", True, _create),
    ("create-after-delete", "a deleted key can be created again, once", True, _create_after_delete),
    ("replace-if-match", "the current etag is accepted", True, _replace),
    ("stale-etag", "an old etag is refused", True, _stale),
    ("match-on-missing", "a key that is gone is not replaced", True, _missing),
    ("create-race", "of several creators one wins", True, _create_race),
    ("replace-race", "of several replacers one wins", True, _replace_race),
)


async def _landed(store: ObjectStore, key: str, body: bytes, outcome: PutOutcome) -> bool:
    """Say whether a write is there. Sent again on the way (by a proxy, say), one that landed is answered with a 412."""
    if _definite(outcome):
        return True
    found = await store.get(key)
    return found is not None and found.body == body


def _definite(outcome: PutOutcome) -> bool:
    if outcome.state is PutState.UNKNOWN:
        raise UnavailableError(
            "the store did not answer the probe",
            reason="STORE_UNAVAILABLE",
            remedy="try again",
            detail=outcome.detail,
        )
    return outcome.won
