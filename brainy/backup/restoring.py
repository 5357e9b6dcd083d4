"""Restoring a backup into a namespace that a cluster serves.

Protocol
--------
*Before.* The backup was checked from its first to its last byte (``check_backup``); a damaged one never gets here.

*Steps*

1. Compare dimensions; refuse if the backup's are not the namespace's.
2. Read what the namespace holds: id → digest of each item. (Skipped where it holds nothing.)
3. Upsert the nouns, then the verbs, of the backup that are not there or differ, in batches.
4. Only with ``clear_existing``, and only now: delete the verbs, then the nouns, that the backup does not hold.
5. Prove it: the namespace's own digest must be the expected one. If it is not (somebody else wrote meanwhile), every
   item of the backup is read back and compared.

*After.* The namespace holds every item of the backup exactly; with ``clear_existing`` nothing else.

*If it crashes* in 3: some items are restored, nothing is lost. In 4: everything is restored, some of the rest is gone.
The same call again finds at step 2 what is done already and does the rest; nothing is written twice. At no moment is
anything deleted that is not replaced already.

*Cancel safety.* As a crash. Each batch carries a request id of its own,
``<run>.<number>``, with which the client repeats it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from brainy.backup.values import CheckedBackup, Progress, RestoreResult, Skipped, no_progress
from brainy.bucket.items import Noun, Verb
from brainy.dataset.base import ItemBatch
from brainy.errors import ConflictError, PreconditionError

#: One write: at most so many items and about so many bytes.
BATCH_ITEMS: Final = 2_000
BATCH_BYTES: Final = 2 << 20
#: The first write of an empty namespace, which the others wait for.
_FIRST_ITEMS: Final = 100
#: Writes under way at once.
IN_FLIGHT: Final = 6
#: Ids of one delete.
_DELETE_IDS: Final = 5_000


class Target(Protocol):
    """The namespace that is restored into."""

    async def dimensions(self) -> int:
        """Length of its vectors; 0 where there is none yet."""

    async def count(self) -> int:
        """Items it holds."""

    def items(self) -> AsyncIterator[ItemBatch]:
        """Yield every item, soft-deleted ones too."""

    async def digest(self) -> str:
        """Multiset digest of all items, folded, at least of what was written through this object."""

    def put_nouns(self, nouns: Sequence[Noun], dimensions: int, request_id: str) -> Coroutine[Any, Any, None]:
        """Insert or replace nouns exactly as they are."""

    def put_verbs(self, verbs: Sequence[Verb], request_id: str) -> Coroutine[Any, Any, None]:
        """Insert or replace verbs exactly as they are."""

    async def delete_nouns(self, ids: Sequence[str], request_id: str) -> None:
        """Delete nouns."""

    async def delete_verbs(self, ids: Sequence[str], request_id: str) -> None:
        """Delete verbs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """How to restore."""

    #: Identity of this run, in the request ids.
    run: str
    #: In the end the namespace holds the backup and nothing else.
    clear_existing: bool = False
    #: Leave items alone whose id is there already.
    keep: bool = False
    #: Length of the vectors, where the backup's own is not meant: nouns of other lengths are kept, not indexed.
    dimensions: int = 0
    #: Check and compare, write nothing.
    dry_run: bool = False
    on_progress: Progress = no_progress


@dataclass(slots=True)
class _Existing:
    """What the namespace held, and the backup did not name (yet): digests by id."""

    nouns: dict[str, bytes] = field(default_factory=dict)
    verbs: dict[str, bytes] = field(default_factory=dict)


async def restore_backup(backup: CheckedBackup, target: Target, options: RestoreOptions) -> RestoreResult:
    """Restore a checked backup; see the module for the protocol.

    Raises:
        PreconditionError: vectors of another length (INVALID_DIMENSION), or the target is read-only; nothing changed.
        ConflictError: somebody wrote to the items of the backup meanwhile; it holds their state now.
        UnavailableError: the namespace cannot be reached now; call again, it goes on.
    """
    return await _Restore(backup, target, options).run()


class _Restore:
    def __init__(self, backup: CheckedBackup, target: Target, options: RestoreOptions) -> None:
        self._backup = backup
        self._target = target
        self._options = options
        self._existing = _Existing()
        #: Digest of the namespace when all is done.
        self._expected = backup.state.copy()
        self._dimensions = 0
        #: The namespace has no dimensions until the first write has set them.
        self._unset = False
        self._written = {"nouns": 0, "verbs": 0}
        self._skipped = list(backup.verification.skipped)
        self._unchanged = 0
        self._batches = 0
        #: Ids left as they were, because they were to be kept.
        self._kept: set[tuple[str, str]] = set()

    async def run(self) -> RestoreResult:
        options, found = self._options, self._backup.verification
        self._dimensions = await self._agree()
        if await self._target.count():
            await self._look()
        await self._write()
        surplus = (list(self._existing.nouns), list(self._existing.verbs)) if options.clear_existing else ([], [])
        if not options.dry_run:
            await self._delete(*surplus)
            await self._prove()
        return RestoreResult(
            nouns_restored=self._written["nouns"],
            verbs_restored=self._written["verbs"],
            skipped=tuple(self._skipped),
            unchanged=self._unchanged,
            nouns_deleted=len(surplus[0]),
            verbs_deleted=len(surplus[1]),
            digest=found.digest,
            dry_run=options.dry_run,
            warnings=found.warnings,
        )

    async def _agree(self) -> int:
        """Return the length of the vectors, which backup and namespace agree on."""
        theirs = await self._target.dimensions()
        self._unset = not theirs
        ours = self._options.dimensions or self._backup.verification.dimensions
        if theirs and ours and theirs != ours:
            raise PreconditionError(
                f"the backup's vectors have {ours} dimensions, the namespace's {theirs}",
                reason="INVALID_DIMENSION",
                remedy=f"restore into another namespace; or, to keep those nouns without indexing them, say "
                f"--dimensions {theirs}. Nothing was changed",
                dimensions=ours,
                namespace_dimensions=theirs,
            )
        return theirs or ours

    async def _look(self) -> None:
        existing = self._existing
        async for batch in self._target.items():
            existing.nouns.update((noun.id, noun.digest()) for noun in batch.nouns)
            existing.verbs.update((verb.id, verb.digest()) for verb in batch.verbs)

    # --- writing ----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        total = self._backup.verification.nouns + self._backup.verification.verbs
        items = self._backup.items()
        pending: set[asyncio.Task[None]] = set()
        nouns: list[Noun] = []
        verbs: list[Verb] = []
        size = 0
        try:
            while (batch := await asyncio.to_thread(_next, items)) is not None:
                fresh_nouns, fresh_verbs = self._fresh(batch)
                if fresh_verbs and nouns:
                    pending = await self._send(pending, nouns, verbs)
                    nouns, verbs, size = [], [], 0
                if self._unset and not self._batches and len(fresh_nouns) > _FIRST_ITEMS:
                    pending = await self._send(pending, fresh_nouns[:_FIRST_ITEMS], [])
                    del fresh_nouns[:_FIRST_ITEMS]
                nouns += fresh_nouns
                verbs += fresh_verbs
                size += sum(map(_size, fresh_nouns)) + sum(map(_size, fresh_verbs))
                if len(nouns) + len(verbs) >= BATCH_ITEMS or size >= BATCH_BYTES:
                    pending = await self._send(pending, nouns, verbs)
                    nouns, verbs, size = [], [], 0
                self._options.on_progress(self._written["nouns"] + self._written["verbs"], total)
            pending = await self._send(pending, nouns, verbs)
            await asyncio.gather(*pending)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _fresh(self, batch: ItemBatch) -> tuple[list[Noun], list[Verb]]:
        nouns = [noun for noun in batch.nouns if self._is_fresh("noun", noun, self._existing.nouns)]
        verbs = [verb for verb in batch.verbs if self._is_fresh("verb", verb, self._existing.verbs)]
        return nouns, verbs

    def _is_fresh(self, kind: str, item: Noun | Verb, existing: dict[str, bytes]) -> bool:
        """Say whether an item must be written; the namespace is then expected to hold it."""
        before = existing.pop(item.id, None) if existing else None
        if before is not None and before != (digest := item.digest()) and self._options.keep:
            self._skipped.append(Skipped(kind=kind, id=item.id, reason="exists"))
            self._kept.add((kind, item.id))
            self._expected.remove(item.id, digest)
            self._expected.add(item.id, before)
            return False
        self._written[f"{kind}s"] += 1
        if before is not None and before == digest:
            self._unchanged += 1
            return False
        return True

    async def _send(
        self, pending: set[asyncio.Task[None]], nouns: list[Noun], verbs: list[Verb]
    ) -> set[asyncio.Task[None]]:
        if self._options.dry_run:
            return pending
        puts: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if nouns:
            puts.append(lambda: self._target.put_nouns(nouns, self._dimensions, self._request()))
        if verbs:
            puts.append(lambda: self._target.put_verbs(verbs, self._request()))
        for put in puts:
            # The first write of an empty namespace sets its dimensions: nothing beside it.
            limit = 1 if self._unset and not self._batches else IN_FLIGHT
            task = asyncio.ensure_future(put())
            pending.add(task)
            while len(pending) >= limit:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for finished in done:
                    finished.result()
        return pending

    def _request(self) -> str:
        self._batches += 1
        return f"{self._options.run}.{self._batches}"

    async def _delete(self, nouns: Sequence[str], verbs: Sequence[str]) -> None:
        for ids, delete in ((verbs, self._target.delete_verbs), (nouns, self._target.delete_nouns)):
            for start in range(0, len(ids), _DELETE_IDS):
                await delete(ids[start : start + _DELETE_IDS], self._request())

    # --- the proof --------------------------------------------------------------------------------------------

    async def _prove(self) -> None:
        if not self._options.clear_existing:
            for left in (self._existing.nouns, self._existing.verbs):
                for item_id, digest in left.items():
                    self._expected.add(item_id, digest)
        if await self._target.digest() == self._expected.fold():
            return
        wanted: dict[tuple[str, str], bytes] = {}
        items = self._backup.items()
        while (batch := await asyncio.to_thread(_next, items)) is not None:
            wanted.update((("noun", noun.id), noun.digest()) for noun in batch.nouns)
            wanted.update((("verb", verb.id), verb.digest()) for verb in batch.verbs)
        for kept in self._kept:
            wanted.pop(kept, None)
        async for batch in self._target.items():
            for noun in batch.nouns:
                if wanted.get(("noun", noun.id)) == noun.digest():
                    del wanted["noun", noun.id]
            for verb in batch.verbs:
                if wanted.get(("verb", verb.id)) == verb.digest():
                    del wanted["verb", verb.id]
        if wanted:
            kind, item_id = next(iter(wanted))
            raise ConflictError(
                "items of the backup are not there as they were written: somebody else writes to this namespace",
                remedy="stop the other writers and restore again; what is done already is not repeated",
                data_safe=False,
                items=len(wanted),
                first=f"{kind} {item_id[:64]}",
            )


def _next(items: Iterator[ItemBatch]) -> ItemBatch | None:
    return next(items, None)


def _size(item: Noun | Verb) -> int:
    return len(item.vector) + len(item.metadata or b"") + len(item.attributes or b"") + len(item.id) + 64
