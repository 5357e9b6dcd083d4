"""The S3 requests obstore cannot form, through boto3 in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from brainy.errors import UnavailableError
from brainy.store.base import ObjectMeta, PutOutcome, PutState, StoredObject
from brainy.store.credentials import s3_client
from brainy.store.s3_access import S3Access
from brainy.store.s3_errors import S3_FAILURES, answer_of, failure_of, outcome_of
from brainy.store.s3_listing import LISTING, Listing, parse_early

R = TypeVar("R")


def _forget(task: asyncio.Task[Any]) -> None:
    # A page nobody waits for any more; looking at its error keeps asyncio from complaining.
    if not task.cancelled():
        task.exception()


class PlainS3:
    """Any key, any listing, at boto3's speed."""

    def __init__(self, bucket: str, access: S3Access) -> None:
        self._bucket = bucket
        self._client = s3_client(access)
        # The wildcard puts it before botocore's own handler, which parses a page to see whether it is an error.
        self._client.meta.events.register_first("before-parse.*.ListObjectsV2", parse_early)

    async def get(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        return await asyncio.to_thread(self.get_blocking, key)

    def get_blocking(self, key: str) -> StoredObject | None:
        """Read a whole object, or None, in the calling thread."""

        def request() -> StoredObject:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            return StoredObject(
                key=key,
                body=answer["Body"].read(),
                etag=answer["ETag"],
                last_modified=answer["LastModified"].timestamp(),
                user_metadata={name.lower(): value for name, value in answer["Metadata"].items()},
            )

        return self._read(key, request)

    async def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""

        def request() -> bytes:
            if length <= 0:
                self._client.head_object(Bucket=self._bucket, Key=key)
                return b""
            span = f"bytes={start}-{start + length - 1}"
            try:
                return self._client.get_object(Bucket=self._bucket, Key=key, Range=span)["Body"].read()
            except S3_FAILURES as error:
                if answer_of(error).status == 416:
                    return b""
                raise

        return await asyncio.to_thread(self._read, key, request)

    async def put(self, key: str, body: bytes, user_metadata: Mapping[str, str] | None) -> str:
        """Write unconditionally; returns the ETag."""
        return await self._run(
            key,
            lambda: self._client.put_object(
                Bucket=self._bucket, Key=key, Body=body, Metadata=dict(user_metadata or {})
            )["ETag"],
        )

    async def put_if(self, key: str, body: bytes, condition: Mapping[str, Any]) -> PutOutcome:
        """Write under a condition (IfNoneMatch or IfMatch)."""

        def request() -> PutOutcome:
            answer = self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **condition)
            return PutOutcome(state=PutState.WON, etag=answer["ETag"])

        try:
            return await asyncio.to_thread(request)
        except S3_FAILURES as error:
            return outcome_of(error, bucket=self._bucket, key=key)

    async def delete(self, key: str) -> None:
        """Remove the object."""
        await self._run(key, lambda: self._client.delete_object(Bucket=self._bucket, Key=key))

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[Sequence[ObjectMeta]]:
        """Pages of up to 1,000 objects; the next one is fetched while the caller works on this one.

        S3 lists in the order of the keys' bytes. SeaweedFS lists directory by directory, which is the same
        order inside one directory only: ``a/b`` comes before ``a.json`` there.
        """

        def request(token: str) -> Listing:
            more = {"ContinuationToken": token} if token else {"StartAfter": start_after} if start_after else {}
            answer: Any = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more)  # type: ignore[arg-type]
            if LISTING not in answer:
                raise UnavailableError(
                    "s3 sent an unreadable listing",
                    remedy="check that the endpoint is an S3 server",
                    reason="STORE_UNAVAILABLE",
                    prefix=prefix,
                )
            listing: Listing = answer[LISTING]
            return listing

        def fetch(token: str) -> asyncio.Task[Listing]:
            return asyncio.create_task(self._run(prefix, lambda: request(token)))

        following: asyncio.Task[Listing] | None = fetch("")
        try:
            while following is not None:
                listing = await following
                following = fetch(listing.next_token) if listing.next_token else None
                if listing.objects:
                    yield listing.objects
        finally:
            if following is not None:
                following.cancel()
                following.add_done_callback(_forget)

    async def close(self) -> None:
        """Give back connections."""
        self._client.close()

    def _read(self, key: str, request: Callable[[], R]) -> R | None:
        try:
            return request()
        except S3_FAILURES as error:
            answer = answer_of(error)
            if answer.status == 404 and answer.code != "NoSuchBucket":
                return None
            raise failure_of(error, bucket=self._bucket, key=key) from error

    async def _run(self, key: str, request: Callable[[], R]) -> R:
        try:
            return await asyncio.to_thread(request)
        except S3_FAILURES as error:
            raise failure_of(error, bucket=self._bucket, key=key) from error
