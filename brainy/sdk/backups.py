"""Calls that back up and restore.

What reads and writes files is imported by the calls that need it: it takes a quarter of a second, and most clients
never do.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from brainy.api.node.v1 import data_pb2
from brainy.backup.restoring import RestoreOptions, restore_backup
from brainy.backup.values import (
    BackupFormat,
    BackupSummary,
    Progress,
    RestoreResult,
    Verification,
    no_progress,
)
from brainy.bucket import layout
from brainy.bucket.digest import MultisetDigest
from brainy.bucket.items import Noun, Verb, noun_from_proto, noun_to_proto, verb_from_proto, verb_to_proto
from brainy.bucket.namespace import Namespace
from brainy.config.settings import load_settings
from brainy.dataset.base import ItemBatch
from brainy.errors import BrainyError, InvalidRequestError, PreconditionError
from brainy.legacy.values import parse_json
from brainy.sdk.connection import Connection
from brainy.store.base import ObjectStore
from brainy.store.opening import open_store


class BackupCalls(Connection):
    """Back up, check, restore."""

    async def backup(self) -> dict[str, Any]:
        """Return everything as the document that Brainy's ``backup()`` returns, as Python values.

        It is read through the cluster, shard after shard, and must fit into memory; ``backup_to`` has neither limit.
        """
        from brainy.backup.document_writing import write_document

        with tempfile.TemporaryDirectory(prefix="brainy-backup-") as name:
            path = Path(name) / "backup.json"
            await write_document(path, ClientTarget(self).items())
            document: dict[str, Any] = parse_json(await asyncio.to_thread(path.read_bytes))
        return document

    async def backup_to(
        self,
        path: str | Path,
        format: str = "brainy",  # noqa: A002 - the word for it
        *,
        since: str | Path | None = None,
        on_progress: Progress = no_progress,
    ) -> BackupSummary:
        """Write everything to a file, as of one cut of all change logs, read straight from the bucket.

        Args:
            path: the file; a former one is replaced once the new one is complete.
            format: ``brainy`` for the JSON that Brainy restores too, ``native`` for the compressed archive.
            since: a native backup beside ``path``: write only what changed since.
            on_progress: called with (items done, items expected or None).

        Raises:
            PreconditionError: this process cannot read the bucket: it has to know the namespace's name and the
                credentials. ``brainy backup`` on another machine can.
            InvalidRequestError: an unknown format, or a wrong ``since``.
            CorruptDataError: something stored is damaged; no file was made.
            OSError: the file cannot be written.
        """
        from brainy.backup.writing import BackupOptions, write_backup

        store = await self._bucket()
        try:
            return await write_backup(
                store,
                self.namespace,
                Path(path),
                BackupOptions(
                    format=format_of(format),
                    since=None if since is None else Path(since),
                    on_progress=on_progress,
                ),
                clock=self._clock,
                ids=self._ids,
            )
        finally:
            await store.close()

    async def restore(
        self,
        source: dict[str, Any] | str | Path,
        clear_existing: bool = False,
        *,
        keep: bool = False,
        dimensions: int = 0,
        dry_run: bool = False,
        accept_rewritten: bool = False,
        on_progress: Progress = no_progress,
    ) -> RestoreResult:
        """Restore a backup of either format. It is read through and proven whole before anything is changed.

        Args:
            source: a file, or Brainy's JSON as Python values.
            clear_existing: afterwards the namespace holds the backup and nothing else. What the backup does not
                hold is deleted last, so that a crash loses nothing.
            keep: leave items alone whose id exists already, instead of replacing them.
            dimensions: length of the namespace's vectors, if the backup's own is not meant.
            dry_run: check and compare; change nothing.
            accept_rewritten: take a JSON backup of ours that another program has rewritten, if its values are the same.
            on_progress: called with (items done, items expected or None).

        Returns:
            What was restored, and what was skipped and why. The namespace's digest has been compared.

        Raises:
            CorruptDataError: the backup is damaged; nothing was changed.
            InvalidRequestError: it is no backup; nothing was changed.
            PreconditionError: vectors of another length than the namespace's (INVALID_DIMENSION); nothing was changed.
            ConflictError: somebody else wrote to the same items meanwhile.
            UnavailableError: the cluster cannot be reached; the same call goes on where this one stopped.
        """
        run = self._ids.uuid() if dry_run else self._changing()
        place = source if isinstance(source, dict) else Path(source)
        from brainy.backup.opening import check_backup

        backup = await asyncio.to_thread(check_backup, place, accept_rewritten=accept_rewritten)
        return await restore_backup(
            backup,
            ClientTarget(self),
            RestoreOptions(
                run=run,
                clear_existing=clear_existing,
                keep=keep,
                dimensions=dimensions,
                dry_run=dry_run,
                on_progress=on_progress,
            ),
        )

    async def verify_backup(self, path: str | Path, *, accept_rewritten: bool = False) -> Verification:
        """Read a backup from its first to its last byte. Asks the cluster nothing.

        Raises:
            CorruptDataError: it is damaged.
            InvalidRequestError: it is no backup.
            NotFoundError: there is no such file, or one an incremental backup builds on is missing.
        """
        from brainy.backup.opening import check_backup

        backup = await asyncio.to_thread(check_backup, Path(path), accept_rewritten=accept_rewritten)
        return backup.verification

    async def _bucket(self) -> ObjectStore:
        cause: object = "the client was opened without a namespace"
        if self.namespace:
            try:
                store = open_store(
                    Namespace.parse(self.namespace), load_settings().store, clock=self._clock, ids=self._ids
                )
                try:
                    if await store.get(layout.ROUTING) is not None:
                        return store
                except BaseException:
                    await store.close()
                    raise
                await store.close()
                cause = "no cluster's records are where this process looks"
            except BrainyError as error:
                cause = error
        raise PreconditionError(
            "this process cannot read the bucket",
            reason="STORE_UNAVAILABLE",
            remedy="give the client the namespace and this process the credentials, or use brainy backup",
            cause=cause,
        )


def format_of(name: str) -> BackupFormat:
    """Return the format of a name.

    Raises:
        InvalidRequestError: there is no such format.
    """
    try:
        return BackupFormat(name)
    except ValueError:
        raise InvalidRequestError("no such backup format", remedy="use brainy or native", format=name) from None


class ClientTarget:
    """A namespace as ``restore_backup`` sees it, through a client."""

    def __init__(self, client: Connection) -> None:
        """Use a client's connections and session."""
        self._client = client

    async def dimensions(self) -> int:
        """Length of the vectors; 0 where there is none yet."""
        return (await self._statistics()).dimensions

    async def count(self) -> int:
        """Items, counted."""
        answer = await self._statistics()
        return answer.noun_count + answer.verb_count

    async def items(self) -> AsyncIterator[ItemBatch]:
        """Yield every item once, with all that is stored of it."""
        client = self._client
        nouns = data_pb2.ScanNounsRequest(namespace=client.namespace, include_vectors=True, include_soft_deleted=True)
        seen: set[str] = set()
        async for answer in client._nodes.stream(lambda node: node.nouns.ScanNouns, nouns, client._scan):
            fresh = [noun_from_proto(noun) for noun in answer.nouns if noun.id not in seen]
            seen.update(noun.id for noun in fresh)
            yield ItemBatch(nouns=fresh)
        verbs = data_pb2.FindVerbsRequest(
            namespace=client.namespace, include_vectors=True, session=client._session.tokens()
        )
        seen.clear()
        async for found in client._nodes.stream(lambda node: node.verbs.FindVerbs, verbs, client._scan):
            fresh_verbs = [verb_from_proto(verb) for verb in found.verbs if verb.id not in seen]
            seen.update(verb.id for verb in fresh_verbs)
            yield ItemBatch(verbs=fresh_verbs)

    async def digest(self) -> str:
        """Digest of all items, at least of what this client wrote."""
        answer = await self._statistics(include_digest=True)
        return MultisetDigest.decode(answer.digest).fold() if answer.digest else ""

    async def put_nouns(self, nouns: Sequence[Noun], dimensions: int, request_id: str) -> None:
        """Insert or replace nouns exactly as they are."""
        client = self._client
        client._changing()
        request = data_pb2.UpsertNounsRequest(
            namespace=client.namespace,
            request_id=request_id,
            nouns=[noun_to_proto(noun) for noun in nouns],
            as_stored=True,
            dimensions=dimensions,
        )
        answer = await client._nodes.unary(lambda node: node.nouns.UpsertNouns, request, client._write)
        client._session.note(answer.positions)

    async def put_verbs(self, verbs: Sequence[Verb], request_id: str) -> None:
        """Insert or replace verbs exactly as they are."""
        client = self._client
        client._changing()
        request = data_pb2.UpsertVerbsRequest(
            namespace=client.namespace,
            request_id=request_id,
            verbs=[verb_to_proto(verb) for verb in verbs],
            as_stored=True,
        )
        answer = await client._nodes.unary(lambda node: node.verbs.UpsertVerbs, request, client._write)
        client._session.note(answer.positions)

    async def delete_nouns(self, ids: Sequence[str], request_id: str) -> None:
        """Delete nouns."""
        client = self._client
        client._changing()
        request = data_pb2.DeleteNounsRequest(namespace=client.namespace, request_id=request_id, ids=ids)
        answer = await client._nodes.unary(lambda node: node.nouns.DeleteNouns, request, client._write)
        client._session.note(answer.positions)

    async def delete_verbs(self, ids: Sequence[str], request_id: str) -> None:
        """Delete verbs."""
        client = self._client
        client._changing()
        request = data_pb2.DeleteVerbsRequest(namespace=client.namespace, request_id=request_id, ids=ids)
        answer = await client._nodes.unary(lambda node: node.verbs.DeleteVerbs, request, client._write)
        client._session.note(answer.positions)

    async def _statistics(self, *, include_digest: bool = False) -> data_pb2.GetStatisticsResponse:
        client = self._client
        request = data_pb2.GetStatisticsRequest(
            namespace=client.namespace, include_digest=include_digest, session=client._session.tokens()
        )
        return await client._nodes.unary(lambda node: node.statistics.GetStatistics, request, client._read)
