"""From the name of a namespace to its store."""

from __future__ import annotations

from typing import Protocol

from brainy.clock import Clock
from brainy.config.settings import StoreSettings
from brainy.errors import InvalidRequestError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.local import LocalStore
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.store.prefixed import PrefixedStore
from brainy.store.retrying import RetryingStore
from brainy.store.s3_access import S3Access

#: memory:// namespaces of one process see each other's objects, as two clients of one bucket do.
_MEMORY: dict[str, MemoryStore] = {}


class StorePlace(Protocol):
    """The part of ``brainy.bucket.namespace.Namespace`` a store is opened from."""

    @property
    def scheme(self) -> str:
        """s3, file or memory."""

    @property
    def root(self) -> str:
        """Bucket, absolute directory or name."""

    @property
    def prefix(self) -> str:
        """Key prefix inside it, without slashes at its ends."""


def open_store(namespace: StorePlace, settings: StoreSettings, *, clock: Clock, ids: Ids) -> MeteredStore:
    """Return the store of a namespace: keys relative to it, calls counted, repeatable calls repeated.

    Nothing is asked of the store yet; a missing bucket shows at the first call, as ``NotFoundError``. The
    caller closes the store.

    Raises:
        PermissionDeniedError: no credentials for S3 are configured.
        InvalidRequestError: unknown scheme.
    """
    store: ObjectStore
    match namespace.scheme:
        case "s3":
            # boto3 takes a quarter of a second to import: not for those who use a directory.
            from brainy.store.s3 import S3Store

            store = S3Store(namespace.root, S3Access.of(settings))
        case "file":
            store = LocalStore(namespace.root, ids=ids)
        case "memory":
            store = _MEMORY.setdefault(namespace.root, MemoryStore(clock))
        case other:
            raise InvalidRequestError(
                "unknown kind of namespace",
                remedy="use s3://bucket/prefix or file:///directory",
                reason="UNKNOWN_NAMESPACE",
                scheme=other,
            )
    retrying: RetryingStore | None = None
    if namespace.scheme != "memory":
        store = retrying = RetryingStore(store, max_retries=settings.max_retries, clock=clock, ids=ids)
    if namespace.prefix:
        store = PrefixedStore(store, namespace.prefix)
    return MeteredStore(store, repeats=lambda: retrying.retries if retrying is not None else 0)
