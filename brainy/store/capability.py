"""Whether a store keeps the promise everything rests on: conditional writes.

Several S3 look-alikes accept the condition headers and ignore them. On such a store two coordinators would both
lead and two nodes would both own a shard, so no role serves from a namespace before this probe has passed.
"""

from __future__ import annotations

import asyncio
import contextlib

from brainy.errors import BrainyError, PreconditionError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import ObjectStore, PutOutcome, PutState

#: Where the probe's objects lie; ``brainy.bucket.layout.ROOT`` + "probe/".
PROBE_PREFIX = "cluster/probe/"
_RACERS = 4


async def probe_conditional_writes(store: ObjectStore, ids: Ids) -> None:
    """Try the conditions on fresh keys under ``cluster/probe/`` and remove them again.

    Checks that create-if-absent does not replace, that replace-if-match accepts the current ETag and refuses a
    stale one and a missing key, that an object reads back as written, and that of four creators of one key one
    wins. Costs about 20 requests. A store may pass and still race in rare cases; one that fails is unfit.

    Raises:
        PreconditionError: STORE_UNFIT; ``check`` names the first check that failed.
        UnavailableError, PermissionDeniedError, NotFoundError: the store could not be tried.
    """
    base = f"{PROBE_PREFIX}{ids.short(12)}"
    keys = [f"{base}-create", f"{base}-match", f"{base}-missing", f"{base}-race"]
    try:
        await _check_create(store, keys[0], ids)
        await _check_match(store, keys[1], ids)
        await _check_missing(store, keys[2], ids)
        await _check_race(store, keys[3], ids)
    finally:
        for key in keys:
            # What was found out matters more than a leftover of a few bytes.
            with contextlib.suppress(BrainyError):
                await store.delete(key)


async def _check_create(store: ObjectStore, key: str, ids: Ids) -> None:
    first, second = ids.nonce(), ids.nonce()
    if not _definite(await store.put_if_absent(key, first)):
        raise _unfit("create-if-absent", "a new key was refused")
    won = _definite(await store.put_if_absent(key, second))
    found = await store.get(key)
    if found is None or found.body not in (first, second):
        raise _unfit("read-after-write", "an object did not read back as written")
    if won or found.body != first:
        raise _unfit("create-if-absent", "if-none-match was ignored and an object overwritten")


async def _check_match(store: ObjectStore, key: str, ids: Ids) -> None:
    bodies = [ids.nonce() for _ in range(3)]
    old_etag = await store.put(key, bodies[0])
    won = _definite(await store.put_if_match(key, bodies[1], old_etag))
    found = await store.get(key)
    if not won or found is None or found.body != bodies[1]:
        raise _unfit("replace-if-match", "the current etag was refused")
    won = _definite(await store.put_if_match(key, bodies[2], old_etag))
    found = await store.get(key)
    if won or found is None or found.body != bodies[1]:
        raise _unfit("stale-etag", "if-match with an old etag was ignored and an object overwritten")


async def _check_missing(store: ObjectStore, key: str, ids: Ids) -> None:
    # An ETag that certainly was one here, of an object that is gone.
    etag = await store.put(key, ids.nonce())
    await store.delete(key)
    won = _definite(await store.put_if_match(key, ids.nonce(), etag))
    if won or await store.get(key) is not None:
        raise _unfit("match-on-missing", "if-match created an object that does not exist")


async def _check_race(store: ObjectStore, key: str, ids: Ids) -> None:
    bodies = [ids.nonce() for _ in range(_RACERS)]
    outcomes = await asyncio.gather(*(store.put_if_absent(key, body) for body in bodies))
    winners = [body for body, outcome in zip(bodies, outcomes, strict=True) if outcome.won]
    found = await store.get(key)
    stored = None if found is None else found.body
    if len(winners) > 1 or (winners and stored != winners[0]) or stored not in bodies:
        raise _unfit("race", f"{len(winners)} of {_RACERS} creators of one key were told that they won")


def _definite(outcome: PutOutcome) -> bool:
    if outcome.state is PutState.UNKNOWN:
        raise UnavailableError(
            "the store did not answer the probe",
            reason="STORE_UNAVAILABLE",
            remedy="try again",
            detail=outcome.detail,
        )
    return outcome.won


def _unfit(check: str, what: str) -> PreconditionError:
    return PreconditionError(
        f"the store is unfit: {what}",
        reason="STORE_UNFIT",
        remedy="use a store with conditional writes: aws s3, seaweedfs, minio, ceph or a directory",
        check=check,
    )
