"""The loop that follows one namespace on one node: hints every second, a reconcile pass every half minute.

One task does everything in turn, so a hint and a pass never work on the same id at once. Which shards are followed is
looked up anew each time round: those of the generation that takes writes, owned here, open for commits. A shard whose
ownership changed begins anew from the book in the bucket.

A tree so large that a pass takes a minute is not listed again at once: after a pass it rests twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from brainy.bucket.follow import FollowChoice, read_choice
from brainy.clock import Clock
from brainy.config.settings import NodeSettings
from brainy.errors import BrainyError
from brainy.ids import Ids
from brainy.legacy.hints import Hints
from brainy.legacy.last_words import LastWords
from brainy.legacy.places import Places, followed_trees
from brainy.store.base import ObjectStore
from brainy.telemetry.logs import get_logger
from brainy_node.following.books import BookShelf, ReadSpec
from brainy_node.following.figures import FollowFigures
from brainy_node.following.followed_shard import FollowedShard
from brainy_node.following.owned import OwnedShard
from brainy_node.following.reconcile import Reconciler
from brainy_node.following.watch import ShardWatch

_log = get_logger(__name__)
_CHOICE_SECONDS = 5.0
#: A book is written this often at most, and when its shard goes.
_SAVE_SECONDS = 600.0
_RETRY_SECONDS = 5.0
#: Rest after a pass for so many times as long as it took.
_REST = 2.0

OwnedNow = Callable[[], Sequence[OwnedShard]]


class Follower:
    """Follows the Brainy processes on one namespace for the shards this node owns."""

    def __init__(
        self,
        store: ObjectStore,
        owned_now: OwnedNow,
        *,
        read_spec: ReadSpec,
        settings: NodeSettings,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._owned_now = owned_now
        self._read_spec = read_spec
        self._settings = settings
        self._clock = clock
        self._ids = ids
        #: What the record in the bucket says, as last read.
        self.choice = FollowChoice()
        self._shards: dict[tuple[int, int], FollowedShard] = {}
        #: When each book was saved last, and what it then had seen.
        self._saved: dict[tuple[int, int], tuple[float, int]] = {}
        self._reconciler: Reconciler | None = None
        self._shelf: BookShelf | None = None
        self._places: Places | None = None
        self._words: LastWords | None = None
        self._hints = Hints(store, clock)
        self._next_pass = 0.0

    # --- what others ask ------------------------------------------------------------------------

    def watch(self, generation: int, shard: int) -> ShardWatch:
        """Return what a mirror of a shard tells about its own writes, and asks about others'."""
        return ShardWatch(self, generation, shard)

    def followed(self, generation: int, shard: int) -> FollowedShard | None:
        """Return a shard that is followed now, None for any other."""
        return self._shards.get((generation, shard))

    def figures(self, generation: int, shard: int) -> FollowFigures | None:
        """Return what following a shard has come to, None while it is not followed."""
        followed = self._shards.get((generation, shard))
        return None if followed is None else followed.figures

    # --- the loop -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow whenever the choice says so, until cancelled."""
        asked_at = -_CHOICE_SECONDS
        try:
            while True:
                now = self._clock.monotonic()
                if now - asked_at >= _CHOICE_SECONDS:
                    asked_at = now
                    await self._ask()
                if self.choice.follow:
                    await self._turn()
                else:
                    await self._let_go(self._shards)
                await self._clock.sleep(self._settings.follow_hint_seconds if self.choice.follow else _CHOICE_SECONDS)
        finally:
            await self._let_go(self._shards, save=False)

    async def _ask(self) -> None:
        try:
            choice = await read_choice(self._store)
        except BrainyError as error:
            _log.warning("follow_choice_unreadable", cause=str(error))
            return
        if (choice.follow, choice.mirror) != (self.choice.follow, self.choice.mirror):
            _log.info("follow_choice", follow=choice.follow, mirror=choice.mirror)
        self.choice = choice

    async def pass_now(self) -> None:
        """Make a pass for whatever is owned now, whenever the last one was.

        Raises:
            BrainyError: the store or a commit; what was settled stands.
        """
        await self._keep_up_with_ownership()
        if self._shards:
            await self._reconcile()

    async def _turn(self) -> None:
        try:
            await self._keep_up_with_ownership()
            if not self._shards:
                return
            if self._clock.monotonic() >= self._next_pass:
                await self._reconcile()
            else:
                await self.take_hints()
        except BrainyError as error:
            # Whatever it was, what is not in the books is read again.
            _log.warning("follow_failed", cause=str(error), reason=error.reason)
            self._note_failure(str(error))
        except Exception as error:
            # A fault of ours must not take the node's shards with it; nothing goes into a book that was not settled.
            _log.exception("follow_crashed")
            self._note_failure(repr(error))

    def _note_failure(self, cause: str) -> None:
        self._next_pass = self._clock.monotonic() + min(_RETRY_SECONDS, self._settings.follow_seconds)
        for followed in self._shards.values():
            followed.figures.last_error = cause

    async def _keep_up_with_ownership(self) -> None:
        owned = {(each.generation, each.number): each for each in self._owned_now()}
        gone = {
            key: followed
            for key, followed in self._shards.items()
            if key not in owned or owned[key].epoch != followed.owned.epoch or followed.deaf
        }
        await self._let_go(gone)
        for key, each in owned.items():
            if key not in self._shards:
                shelf, places = await self._tools(each.generation)
                beginning = await shelf.begin(each, dialect=self.choice.mirror)
                followed = FollowedShard(
                    each,
                    self._store,
                    places,
                    book=beginning.book,
                    words=beginning.words,
                    echoes=beginning.echoes,
                    clock=self._clock,
                    mirrored=lambda: bool(self.choice.mirror),
                )
                followed.start()
                self._shards[key] = followed
                self._next_pass = 0.0
                _log.info(
                    "following",
                    generation=each.generation,
                    shard=each.number,
                    epoch=each.epoch,
                    known=0 if beginning.book is None else len(beginning.book),
                    unsaved=len(beginning.echoes),
                )

    async def _tools(self, generation: int) -> tuple[BookShelf, Places]:
        if self._shelf is None or self._places is None:
            spec = await self._read_spec(generation)
            while spec.source.isdigit():
                spec = await self._read_spec(int(spec.source))
            self._places = Places(followed_trees(spec.source_trees))
            self._words = LastWords(self._store, self._clock)
            self._reconciler = Reconciler(self._store, self._places, self._words, self._clock)
            self._shelf = BookShelf(self._store, self._places.listed, self._read_spec, self._clock, self._ids)
        return self._shelf, self._places

    async def let_go(self, *, save: bool = True) -> None:
        """Follow nothing more, until the next turn; ``save`` writes the books."""
        await self._let_go(self._shards, save=save)

    async def _let_go(self, gone: dict[tuple[int, int], FollowedShard], *, save: bool = True) -> None:
        for key, followed in list(gone.items()):
            self._shards.pop(key, None)
            await followed.close()
            if save:
                await self._save(key, followed)
            self._saved.pop(key, None)

    async def _save(self, key: tuple[int, int], followed: FollowedShard) -> None:
        if self._shelf is not None and followed.book is not None:
            self._saved[key] = self._clock.monotonic(), followed.book.changes
            await self._shelf.save(followed.owned, followed.book, echoes=followed.echoes, idle=followed.idle)

    async def _reconcile(self) -> None:
        assert self._reconciler is not None
        began = self._clock.monotonic()
        shards = list(self._shards.values())
        await self._reconciler.run(shards)
        ended = self._clock.monotonic()
        self._next_pass = max(began + self._settings.follow_seconds, ended + _REST * (ended - began))
        for key, followed in self._shards.items():
            saved_at, changes = self._saved.get(key, (-_SAVE_SECONDS, -1))
            if ended - saved_at >= _SAVE_SECONDS and followed.book is not None and followed.book.changes != changes:
                await self._save(key, followed)

    async def take_hints(self) -> None:
        """Read what the end of Brainy's change log names.

        Raises:
            BrainyError: the store or a commit; the reconcile pass makes it good.
        """
        assert self._reconciler is not None
        assert self._words is not None
        entries = await self._hints.poll()
        for entry in entries:
            self._words.note(entry)
        if entries := [entry for entry in entries if not entry.ours]:
            deleted = {entry.id for entry in entries if entry.deletes}
            await self._reconciler.read_again(list(self._shards.values()), {entry.id for entry in entries}, deleted)
