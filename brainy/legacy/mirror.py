"""Writing a batch of changes into Brainy's tree.

*Before.* The changes are durable in our log; there is one for each id, its last state. The caller owns the shard.

*Steps.* 1. ``prepare``: render each change. Where somebody watches the tree (``SeenObjects.watches``), read the
objects that will be replaced: one that is not the version taken over last has been changed by Brainy, and whether its
word or ours is the later one is being decided. 2. The caller drops the changes that a later record of Brainy's own has
overtaken. 3. ``write``: different ids at once, the writes of one id in order, its change-log entries last. Objects that
were read in step 1 are replaced only if they are still those (If-Match; If-None-Match for one that was absent).

*After.* Every change is in the tree, or is among ``undecided``: Brainy has changed an object of it meanwhile. The
caller prepares those anew until a record of Brainy's own has overtaken them, or the watcher has taken note and kept
ours.

*If it crashes* anywhere: some of the objects are written. The same changes rendered again are the same bytes under the
same keys, so that repeating the batch completes it and doubles nothing. A repeat whose condition fails reads the
object: it is ours already, or it is Brainy's.

*A failing store* ends the batch with the error; nothing is skipped. The caller repeats it.

*Limits.* S3 has no condition for DELETE: what Brainy writes between step 1 and a DELETE is lost. Without a watcher
there is no condition at all: the last writer wins, as among Brainy processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from brainy.bucket import layout
from brainy.bucket.items import Noun, Verb
from brainy.bucket.mirroring import MirrorCounts
from brainy.errors import InvalidRequestError, UnavailableError
from brainy.legacy.dialect.dialects import Dialect
from brainy.legacy.dialect.entries import Place
from brainy.legacy.dialect.limits import Limit, LimitKind
from brainy.legacy.dialect.rendering import (
    DEFAULT_SERVICE,
    Bounds,
    Rendered,
    Write,
    render_noun,
    render_noun_deletion,
    render_verb,
    render_verb_deletion,
    service_of,
)
from brainy.legacy.keys import Kind
from brainy.legacy.seen_objects import SeenObjects
from brainy.store.base import ObjectStore, PutState

_IN_FLIGHT = 32
#: Rendering gives way to the event loop this often.
_RENDERED_AT_ONCE = 16

Name = tuple[Kind, str]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mark:
    """A place between two log objects; ordered as they are read."""

    #: Log objects read before it.
    number: int = 0
    position: int = field(default=0, compare=False)
    milliseconds: int = field(default=0, compare=False)
    source: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The last state of one id in a batch."""

    kind: Kind
    id: str
    #: None: deleted.
    item: Noun | Verb | None
    place: Place
    #: Which log it is from, in the order in which they are read, and its position there.
    order: tuple[int, int] = (0, 0)
    #: Where reading was before the log object the change is in.
    before: Mark = Mark()

    @property
    def name(self) -> Name:
        """Kind and id."""
        return self.kind, self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A batch, rendered, and what is known of the objects it replaces."""

    changes: Sequence[tuple[Change, Rendered]]
    #: Key -> ETag, "" for one that is absent. Keys that are not in it are written without a condition.
    etags: Mapping[str, str] = field(default_factory=dict)
    #: Names of which Brainy has changed an object that nobody has taken note of yet.
    undecided: frozenset[Name] = frozenset()


@dataclass(slots=True, kw_only=True)
class Written:
    """What became of a batch."""

    written: int = 0
    counts: MirrorCounts = field(default_factory=MirrorCounts)
    undecided: list[Change] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)


class _ConflictError(Exception):
    """Brainy has changed the object."""


class Mirror:
    """Writes changes of one shard in one dialect."""

    def __init__(
        self,
        store: ObjectStore,
        dialect: Dialect,
        *,
        seen: SeenObjects,
        change_log: bool,
        bounds: Bounds,
        guard: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare.

        Args:
            store: of the namespace.
            dialect: of the version that lives there.
            seen: who watches the tree.
            change_log: whether that version writes one.
            bounds: what the namespace allows.
            guard: called before each write; raises when we may not write any more.
        """
        self._store = store
        self._dialect = dialect
        self._seen = seen
        self._change_log = change_log
        self._bounds = bounds
        self._guard = guard
        self._room = asyncio.Semaphore(_IN_FLIGHT)

    async def prepare(self, changes: Sequence[Change]) -> Prepared:
        """Render changes, and look at what they replace if somebody watches.

        Raises:
            BrainyError: the store failed.
        """
        rendered = []
        for number, change in enumerate(changes, 1):
            rendered.append((change, self._render(change)))
            if number % _RENDERED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if not self._seen.watches:
            return Prepared(changes=rendered)
        owners = {write.key: change.name for change, one in rendered for write in one.writes}
        etags: dict[str, str] = {}
        undecided: set[Name] = set()
        wanted = list(owners)
        bodies = {write.key: write.body for _, one in rendered for write in one.writes}
        for key, found in zip(wanted, await self._store.get_many(wanted), strict=True):
            if isinstance(found, InvalidRequestError):
                continue  # what the store makes of the key shows when it is written
            if isinstance(found, Exception):
                raise found
            ours = found.body if found is not None else None
            # Equal bytes are an earlier try of this batch: nobody needs to have seen that.
            if ours != bodies[key] and not self._seen.unchanged(key, found):
                undecided.add(owners[key])
            etags[key] = "" if found is None else found.etag
        return Prepared(changes=rendered, etags=etags, undecided=frozenset(undecided))

    async def write(self, batch: Prepared, *, without: Collection[Name] = ()) -> Written:
        """Write a prepared batch, but for the names in ``without``.

        Raises:
            FencedError: the guard says that we may not write any more. Some of the batch may be written.
            BrainyError: the store failed. Some of the batch may be written; repeat it.
        """
        result = Written()
        work = []
        for change, rendered in batch.changes:
            if change.name in without:
                continue
            if change.name in batch.undecided:
                result.undecided.append(change)
                continue
            result.limits += rendered.limits
            if rendered.writes:
                work.append(asyncio.ensure_future(self._write_one(change, rendered, batch.etags, result)))
        try:
            await asyncio.gather(*work)
        finally:
            # After a failure the others must not go on writing beside the next try.
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        return result

    def _render(self, change: Change) -> Rendered:
        dialect, place, bounds = self._dialect, change.place, self._bounds
        match change.item:
            case Noun() as noun:
                return render_noun(dialect, noun, place, bounds)
            case Verb() as verb:
                return render_verb(dialect, verb, place, bounds)
            case None if change.kind is Kind.NOUN:
                return render_noun_deletion(dialect, change.id, place, bounds)
            case _:
                return render_verb_deletion(dialect, change.id, place, bounds)

    async def _write_one(self, change: Change, rendered: Rendered, etags: Mapping[str, str], result: Written) -> None:
        async with self._room:
            try:
                for write in rendered.writes:
                    await self._guard()
                    await self._carry_out(write, etags.get(write.key))
                if self._change_log:
                    for entry in rendered.entries:
                        await self._guard()
                        await self._store.put(entry.key, entry.body, user_metadata=entry.user_metadata)
            except _ConflictError:
                result.undecided.append(change)
                return
            except InvalidRequestError as error:
                # Of this key only, if the store answers otherwise.
                await self._store.get(layout.ROUTING)
                detail = str(error)[:200]
                result.limits.append(
                    Limit(kind=LimitKind.KEY_REFUSED, item=change.kind, id=change.id, detail=detail, withheld=True)
                )
                return
            result.written += 1
            result.counts = result.counts.plus(_counts(change))

    async def _carry_out(self, write: Write, etag: str | None) -> None:
        self._seen.hold(write.key)
        try:
            if write.body is None:
                await self._delete(write.key, etag)
                self._seen.deleted(write.key)
            else:
                self._seen.wrote(write.key, await self._put(write.key, write.body, etag))
        except BaseException:
            self._seen.release(write.key)
            raise

    async def _delete(self, key: str, etag: str | None) -> None:
        if etag == "":
            return  # there was nothing, a moment ago
        if etag:
            found = await self._store.get(key)
            if found is not None and found.etag != etag:
                raise _ConflictError
        await self._store.delete(key)

    async def _put(self, key: str, body: bytes, etag: str | None) -> str:
        if etag is None:
            return await self._store.put(key, body)
        if etag:
            outcome = await self._store.put_if_match(key, body, etag)
        else:
            outcome = await self._store.put_if_absent(key, body)
        if outcome.won:
            return outcome.etag
        found = await self._store.get(key)
        if found is not None and found.body == body:
            return found.etag
        if outcome.state is PutState.UNKNOWN and ("" if found is None else found.etag) == etag:
            raise UnavailableError("nobody knows whether a mirrored write landed", reason="STORE_UNAVAILABLE", key=key)
        raise _ConflictError


def _counts(change: Change) -> MirrorCounts:
    """As Brainy counts: every add is one more, an update too; a delete is one less."""
    match change.item:
        case Noun(metadata=metadata):
            service = service_of(metadata)
            return MirrorCounts(nouns={service: 1}, metadata={service: 1} if metadata is not None else {})
        case Verb(attributes=attributes):
            return MirrorCounts(verbs={service_of(attributes): 1})
        case None if change.kind is Kind.NOUN:
            return MirrorCounts(nouns={DEFAULT_SERVICE: -1}, metadata={DEFAULT_SERVICE: -1})
        case _:
            return MirrorCounts(verbs={DEFAULT_SERVICE: -1})
