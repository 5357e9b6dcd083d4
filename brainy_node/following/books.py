"""Books in the bucket: loading what a new owner starts from, saving now and then.

*Load.* The shard's own book; else, right after a cut-over, what belongs to the shard of the books of the generation
this one was filled from; else none, and the first pass compares everything.

*Save.* By its ETag. A book of a higher epoch is left alone: it is a newer owner's. A crash between a commit and the
next save loses nothing: the new owner finds those versions unknown, reads them, sees that they are served, and notes
them.

With the book come the words our own clients spoke after its position: those records are read from the logs it speaks
of. What was copied from a source generation counts as of the source's log: the copy is younger than the word. What of
these logs has been collected was spoken before ``collected/<shard>.json`` was last written, which is the floor.

And what our mirror may have written unknown to the book (``echo_window``): a book is saved with how far it knows that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from brainy.bucket import layout
from brainy.bucket.records import Collected, Spec
from brainy.changelog.reading import read_log
from brainy.clock import Clock
from brainy.errors import BrainyError, CorruptDataError, LogCollectedError
from brainy.ids import Ids
from brainy.legacy.seen import Mirrored, SeenBook
from brainy.legacy.seen_file import decode_book, encode_book
from brainy.store.base import ObjectStore
from brainy.store.cas import CasRegister
from brainy.telemetry.logs import get_logger
from brainy_node.following.echo_window import EchoWindow
from brainy_node.following.echoes import Echoes
from brainy_node.following.own_words import OwnWords
from brainy_node.following.owned import OwnedShard

_log = get_logger(__name__)
ReadSpec = Callable[[int], Awaitable[Spec]]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What following a shard starts from."""

    book: SeenBook | None
    words: OwnWords
    echoes: Echoes


class BookShelf:
    """The books of one namespace in the bucket."""

    def __init__(
        self, store: ObjectStore, prefixes: Sequence[str], read_spec: ReadSpec, clock: Clock, ids: Ids
    ) -> None:
        self._store = store
        self._prefixes = prefixes
        self._read_spec = read_spec
        self._clock = clock
        self._ids = ids
        self._window = EchoWindow(store)

    async def begin(self, owned: OwnedShard, *, dialect: str = "") -> Beginning:
        """Return what is known of a shard; ``dialect`` is what the namespace is to be mirrored in, "" for not.

        Raises:
            BrainyError: what the store said.
        """
        generation, number = owned.generation, owned.number
        book = await self._load(generation, number)
        chain = await self._earlier(generation)
        if book is not None:
            logs = [(generation, number, book.position)]
            return await self._beginning(owned, book, book.mirrored, logs, chain, dialect)
        books = [(g, s, await self._load(g, s)) for g, count in chain[:1] for s in range(count)]
        logs = [(generation, number, 0)]
        known = [book for _, _, book in books if book is not None]
        mirrored = None
        if books and len(known) == len(books):
            book = SeenBook.union(known).part(number, owned.shard_count)
            mirrored = Mirrored.union([each.mirrored for each in known])
            logs += [(g, s, found.position) for g, s, found in books if found is not None]
        else:
            logs += [(g, s, 0) for g, count in chain for s in range(count)]
        return await self._beginning(owned, book, mirrored, logs, chain, dialect)

    async def _beginning(
        self,
        owned: OwnedShard,
        book: SeenBook | None,
        mirrored: Mirrored | None,
        logs: Sequence[tuple[int, int, int]],
        chain: Sequence[tuple[int, int]],
        dialect: str,
    ) -> Beginning:
        words = await self._words(owned.generation, owned.number, logs, chain)
        return Beginning(book, words, await self._window.echoes(owned, chain, mirrored, dialect=dialect))

    async def _earlier(self, generation: int) -> list[tuple[int, int]]:
        """Return (generation, shard count) of those this one was made from, the nearest first."""
        chain = []
        spec = await self._read_spec(generation)
        while spec.source.isdigit():
            spec = await self._read_spec(int(spec.source))
            chain.append((spec.generation, spec.shard_count))
        return chain

    async def _words(
        self,
        generation: int,
        shard: int,
        logs: Sequence[tuple[int, int, int]],
        chain: Sequence[tuple[int, int]],
    ) -> OwnWords:
        words = OwnWords()
        wanted, read = list(logs), set[int]()
        while wanted:
            copied = await self._read_words(words, generation, shard, wanted)
            read |= {number for number, _, _ in wanted}
            # Copies of which nobody said from where on their source is to be read: all of it.
            sources = {max(g for g, _ in chain if g < number) for number in copied if any(g < number for g, _ in chain)}
            wanted = [(g, s, 0) for g, count in chain if g in sources - read for s in range(count)]
        return words

    async def _read_words(
        self, words: OwnWords, generation: int, shard: int, logs: Sequence[tuple[int, int, int]]
    ) -> set[int]:
        """Take in some logs; return the generations that hold words copied from the one before."""
        copied = set()
        for number, part, position in logs:
            while True:
                collected = await self._store.get(layout.collected(number, part))
                reached = 0
                if collected is not None:
                    reached = Collected.decode(collected.body, key=collected.key).position
                    if reached > position:
                        words.floor = max(words.floor, int(collected.last_modified) + 1)
                start = max(position, reached)
                try:
                    last = start
                    async for slot in read_log(self._store, number, part, from_position=start + 1):
                        if words.take(slot):
                            copied.add(number)
                        last = slot.last
                except LogCollectedError:
                    continue
                break
            if (number, part) == (generation, shard):
                words.position = last
        return copied

    async def _load(self, generation: int, shard: int) -> SeenBook | None:
        key = layout.seen_book(generation, shard)
        found = await self._store.get(key)
        if found is None:
            return None
        try:
            book, _ = decode_book(found.body, generation=generation, shard=shard, key=key)
        except CorruptDataError as error:
            _log.warning("book_damaged", key=key, cause=str(error))
            return None
        if set(book.places) != set(self._prefixes):
            return None  # of another version of this software, or other trees are followed now
        return book

    async def save(
        self, owned: OwnedShard, book: SeenBook, *, echoes: Echoes | None = None, idle: bool = False
    ) -> bool:
        """Write a book unless a newer owner has written one; False if nothing was written.

        Args:
            owned: whose book.
            book: it gets to know how far it knows our own writes.
            echoes: while open, the book knows no more of them than it did at the beginning.
            idle: whether nobody mirrors the shard, and nothing of a mirror's is under way.
        """
        key = layout.seen_book(owned.generation, owned.number)
        register = CasRegister[tuple[SeenBook, int]](
            self._store,
            key,
            encode=lambda value: encode_book(
                value[0],
                generation=owned.generation,
                shard=owned.number,
                epoch=value[1],
                nonce=self._ids.nonce().hex(),
            ),
            decode=lambda body: decode_book(body, generation=owned.generation, shard=owned.number, key=key),
            clock=self._clock,
            ids=self._ids,
        )
        etag: str | None = None
        try:
            # Before the book is written down: of what is at or below these positions it has been told.
            if echoes is not None and echoes.open:
                book.mirrored = echoes.since
            else:
                chain = await self._earlier(owned.generation)
                book.mirrored = await self._window.reached(owned.generation, owned.number, chain, idle=idle)
        except BrainyError as error:
            _log.warning("book_not_saved", key=key, cause=str(error))
            return False
        try:
            if (found := await register.load()) is not None:
                etag = found[1]
                if found[0][1] > owned.epoch:
                    return False
        except CorruptDataError:
            damaged = await self._store.get(key)
            etag = None if damaged is None else damaged.etag
        except BrainyError as error:
            _log.warning("book_not_saved", key=key, cause=str(error))
            return False
        try:
            return await register.swap((book, owned.epoch), etag)
        except BrainyError as error:
            _log.warning("book_not_saved", key=key, cause=str(error))
            return False
