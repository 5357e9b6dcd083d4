"""An object store in S3 or in anything that speaks it.

Bytes go through obstore, whose own retries are off: a retried conditional write that had landed would look
lost, and everything that may be repeated is repeated by ``RetryingStore``, which counts. Two things go through
boto3 in a thread: listings, because obstore takes keys for paths and reports ``x/`` as ``x``; and the keys
obstore cannot address (empty, '.' or '..' parts, control characters). Objects whose user metadata is not UTF-8 (Brainy
sends ids as they are) are read through boto3 once obstore has refused them.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import S3Store as ObstoreS3

from brainy.store.base import ObjectMeta, PutOutcome, PutState, StoredObject
from brainy.store.credentials import credential_provider
from brainy.store.keys import MAX_KEY_BYTES, check_key
from brainy.store.s3_access import S3Access
from brainy.store.s3_errors import S3_FAILURES, answer_of, failure_of, outcome_of
from brainy.store.s3_plain import PlainS3

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import S3Config

#: Above this size an unconditional write goes up in parts.
_SINGLE_PUT_BYTES = 64 << 20
_PART_BYTES = 16 << 20
_READERS = 64
_UNADDRESSABLE = re.compile(r"[\x00-\x1f\x7f]|(?:^|/)(?:\.{0,2})(?:/|$)")
#: The same for keys on lines of their own.
_UNADDRESSABLE_LINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]|(?:^|/)(?:\.{0,2})(?:/|$)", re.MULTILINE)
_STANDARD_ATTRIBUTES = frozenset(
    {
        "Content-Disposition",
        "Content-Encoding",
        "Content-Language",
        "Content-Type",
        "Cache-Control",
        "Storage-Class",
    }
)


class S3Store:
    """One bucket."""

    def __init__(self, bucket: str, access: S3Access) -> None:
        self._bucket = bucket
        self._plain = PlainS3(bucket, access)
        # Threads start as they are needed.
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="s3-reader")
        config: S3Config = {"region": access.region}
        if access.endpoint:  # both, because the second one may stand in the environment and would win
            config |= {"endpoint": access.endpoint, "aws_endpoint_url_s3": access.endpoint}
        self._store = ObstoreS3(
            bucket,
            config=config,
            credential_provider=credential_provider(),
            client_options={
                "allow_http": access.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "read_timeout": timedelta(seconds=access.timeout_seconds),
                # For whole transfers: a segment of an index may be large.
                "timeout": timedelta(seconds=20 * access.timeout_seconds),
            },
            retry_config={"max_retries": 0},
        )

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        if _UNADDRESSABLE.search(check_key(key)):
            return await self._plain.get(key)
        try:
            result = await obstore.get_async(self._store, key)
            return _stored(key, result, (await result.bytes_async()).to_bytes())
        except S3_FAILURES as error:
            if _refuses_metadata(error):
                return await self._plain.get(key)
            self._raise_unless_missing(error, key)
            return None

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        if length <= 0 or _UNADDRESSABLE.search(check_key(key)):
            return await self._plain.get_range(key, start, length)
        try:
            part = await obstore.get_range_async(self._store, key, start=start, length=length)
        except S3_FAILURES as error:
            if answer_of(error).status == 416:  # starts behind the end
                return b""
            if _refuses_metadata(error):
                return await self._plain.get_range(key, start, length)
            self._raise_unless_missing(error, key)
            return None
        return bytes(part)

    async def get_many(
        self, keys: Sequence[str], *, concurrency: int = 64
    ) -> Sequence[StoredObject | Exception | None]:
        """Read many objects, up to ``concurrency`` (at most 64) at a time, in threads of the store's own.

        A request costs a third less processor time there than on the event loop, which stays free besides. Threads
        do as little as they can between two requests, for they take turns at the interpreter: keys are looked at
        before, objects are made of the answers in one go by the thread that ends last, and it alone wakes the loop.
        Cancelled, it stops after the requests under way.
        """
        if not keys:
            return []
        found: list[StoredObject | Exception | tuple[GetResult, bytes] | None] = [None] * len(keys)
        fetch = self._fetch if _all_addressable(keys) else self._get_blocking
        places = iter(range(len(keys)))  # shared: each place is taken by one thread
        cancelled = threading.Event()
        workers = min(max(1, concurrency), _READERS, len(keys))
        ends = iter(range(workers, 0, -1))  # of the threads; the last one sees 1
        outcome: list[StoredObject | Exception | None] = []

        def work() -> None:
            for place in places:
                if cancelled.is_set():
                    return
                try:
                    found[place] = fetch(keys[place])
                except Exception as error:  # stands in its place; the others go on
                    found[place] = error
            if next(ends) == 1:
                outcome.extend(
                    _stored(key, *item) if isinstance(item, tuple) else item
                    for key, item in zip(keys, found, strict=True)
                )

        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        left = iter(range(workers, 0, -1))

        def tell() -> None:
            if not ended.done():
                ended.set_result(None)

        def end(_: Future[None]) -> None:
            if next(left) == 1:  # called for every thread, one that never began included
                with suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(tell)

        try:
            jobs = [self._readers.submit(work) for _ in range(workers)]
            for job in jobs:
                job.add_done_callback(end)
            await ended
        finally:
            cancelled.set()
        if any(job.cancelled() for job in jobs):
            raise asyncio.CancelledError  # the store was closed meanwhile
        for job in jobs:
            job.result()
        return outcome

    async def put(self, key: str, body: bytes, *, user_metadata: Mapping[str, str] | None = None) -> str:
        """Write unconditionally; returns the ETag."""
        if _UNADDRESSABLE.search(check_key(key)):
            return await self._plain.put(key, body, user_metadata)
        try:
            result = await obstore.put_async(
                self._store,
                key,
                body,
                attributes=dict(user_metadata) if user_metadata else None,
                use_multipart=len(body) > _SINGLE_PUT_BYTES,
                chunk_size=_PART_BYTES,
            )
        except S3_FAILURES as error:
            raise failure_of(error, bucket=self._bucket, key=key) from error
        return result["e_tag"] or ""

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        """Create the object unless the key exists."""
        if _UNADDRESSABLE.search(check_key(key)):
            return await self._plain.put_if(key, body, {"IfNoneMatch": "*"})
        return await self._conditional(key, body, "create")

    async def put_if_match(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace the object if its ETag is ``etag``."""
        if not etag:
            return PutOutcome(state=PutState.LOST, detail="no etag to match")
        if _UNADDRESSABLE.search(check_key(key)):
            return await self._plain.put_if(key, body, {"IfMatch": etag})
        # No "version" beside it: obstore would then ask for a version the store never heard of.
        return await self._conditional(key, body, {"e_tag": etag})

    async def _conditional(self, key: str, body: bytes, mode: Any) -> PutOutcome:
        try:
            result = await obstore.put_async(self._store, key, body, mode=mode, use_multipart=False)
        except S3_FAILURES as error:
            return outcome_of(error, bucket=self._bucket, key=key)
        return PutOutcome(state=PutState.WON, etag=result["e_tag"] or "")

    async def delete(self, key: str) -> None:
        """Remove the object."""
        if _UNADDRESSABLE.search(check_key(key)):
            await self._plain.delete(key)
            return
        try:
            await obstore.delete_async(self._store, key)
        except S3_FAILURES as error:
            self._raise_unless_missing(error, key)

    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of up to 1,000 objects in the order of the store (see ``PlainS3.list``)."""
        return self._plain.list(prefix, start_after=start_after)

    async def close(self) -> None:
        """Give back connections."""
        await self._plain.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _get_blocking(self, key: str) -> StoredObject | tuple[GetResult, bytes] | None:
        if _UNADDRESSABLE.search(check_key(key)):
            return self._plain.get_blocking(key)
        return self._fetch(key)

    def _fetch(self, key: str) -> StoredObject | tuple[GetResult, bytes] | None:
        """The answer for a key that obstore can address."""
        try:
            result = obstore.get(self._store, key)
            return result, result.bytes().to_bytes()
        except S3_FAILURES as error:
            if _refuses_metadata(error):
                return self._plain.get_blocking(key)
            self._raise_unless_missing(error, key)
            return None

    def _raise_unless_missing(self, error: Exception, key: str) -> None:
        if not _missing(error):
            raise failure_of(error, bucket=self._bucket, key=key) from error


def _all_addressable(keys: Sequence[str]) -> bool:
    """Whether obstore can address all of these keys, seen at a glance; False where that takes a closer look."""
    text = "\n".join(keys)
    return (
        text.isascii()
        and max(map(len, keys)) <= MAX_KEY_BYTES
        and text.count("\n") == len(keys) - 1
        and _UNADDRESSABLE_LINE.search(text) is None
    )


def _stored(key: str, result: GetResult, body: bytes) -> StoredObject:
    meta = result.meta
    return StoredObject(
        key=key,
        body=body,
        etag=meta["e_tag"] or "",
        last_modified=meta["last_modified"].timestamp(),
        user_metadata={
            name.lower(): value for name, value in result.attributes.items() if name not in _STANDARD_ATTRIBUTES
        },
    )


def _refuses_metadata(error: Exception) -> bool:
    # The answer was there: obstore could not make text of a header.
    return "contained non UTF-8 characters" in answer_of(error).text


def _missing(error: Exception) -> bool:
    answer = answer_of(error)
    return answer.status == 404 and answer.code != "NoSuchBucket"
