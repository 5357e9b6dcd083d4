"""From settings to a lock provider."""

from __future__ import annotations

from brainy.clock import Clock
from brainy.config.settings import LockSettings
from brainy.errors import InvalidRequestError
from brainy.ids import Ids
from brainy.locks.base import LockProvider
from brainy.locks.object_store import ObjectStoreLocks
from brainy.locks.tokens import BucketTokens
from brainy.store.base import ObjectStore


def open_locks(settings: LockSettings, store: ObjectStore, clock: Clock, ids: Ids, *, scope: str = "") -> LockProvider:
    """Return the locks of a namespace; nothing is connected yet. The caller closes them, and the store.

    Args:
        store: the namespace's store; with Redis, where the tokens come from.
        scope: tells the locks of several namespaces in one Redis apart; the namespace's URI. Every process
            gives the same.

    Raises:
        InvalidRequestError: Redis without an address, or with a wrong one.
    """
    in_bucket = ObjectStoreLocks(store, clock, ids)
    if settings.provider == "store":
        return in_bucket
    if not settings.redis_url:
        raise InvalidRequestError(
            "redis is to keep the locks, but where it is was not said",
            remedy="set locks.redis_url (BRAINY_LOCKS__REDIS_URL), or locks.provider = store",
            setting="locks.redis_url",
        )
    # Only for those who use it: the client takes a tenth of a second to import.
    from brainy.locks.redis import RedisLocks

    return RedisLocks(
        settings.redis_url,
        clock,
        ids,
        scope=scope,
        floor=BucketTokens(in_bucket, ids),
        timeout_seconds=settings.redis_timeout_seconds,
    )
