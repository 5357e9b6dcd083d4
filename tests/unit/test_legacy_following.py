"""The pieces following is made of: the book as an object, the choice, the last words of the change log."""

from __future__ import annotations

import hashlib

import orjson
import pytest

from brainy.bucket import layout
from brainy.bucket.embedding import EmbeddingIdentity, Reembedding
from brainy.bucket.follow import FollowChoice, change_choice, read_choice
from brainy.bucket.records import GenerationPlacement, Routing, ShardPlacement, Spec
from brainy.errors import CorruptDataError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.deletions import Deletions, Suspect
from brainy.legacy.keys import Kind
from brainy.legacy.last_words import LastWords
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.places import Places, followed_trees
from brainy.legacy.seen import Mirrored, SeenBook, version_of
from brainy.legacy.seen_file import MAGIC, decode_book, encode_book
from brainy.store.base import StoredObject
from brainy.store.memory import MemoryStore
from brainy.store.metered import MeteredStore
from brainy.testing.clock import ManualClock

# --- the book ---------------------------------------------------------------------------------------------------


def book() -> SeenBook:
    made = SeenBook(("nouns/", "metadata/"), position=17)
    for number in range(100):
        made.saw(f"nouns/n{number}.json", version_of(f"e{number}", number))
    return made


def stored(made: SeenBook) -> bytes:
    return encode_book(made, generation=2, shard=3, epoch=5, nonce="n")


def test_a_book_comes_back_as_it_was() -> None:
    read, epoch = decode_book(stored(book()), generation=2, shard=3, key="k")
    assert (epoch, read.position, len(read)) == (5, 17, 100)
    assert all(read.version(f"nouns/n{n}.json") == version_of(f"e{n}", n) for n in range(100))


def test_a_book_knows_how_far_it_knows_our_own_writes() -> None:
    made = book()
    read, _ = decode_book(stored(made), generation=2, shard=3, key="k")
    assert read.mirrored is None  # as in the books of before
    made.mirrored = Mirrored(dialect="flat-split", positions={"2/3": 8, "1/0": 5}, nonces={"2/3": "m"}, idle=True)
    read, _ = decode_book(stored(made), generation=2, shard=3, key="k")
    assert read.mirrored == made.mirrored


def test_several_books_know_what_each_of_them_knows() -> None:
    one = Mirrored(dialect="flat-split", positions={"1/0": 5, "0/0": 9}, nonces={"1/0": "m"}, idle=True)
    other = Mirrored(dialect="flat-split", positions={"1/1": 7, "0/0": 4}, nonces={"1/1": "n"}, idle=True)
    both = Mirrored.union([one, other])
    assert both is not None
    assert both.positions == {"1/0": 5, "1/1": 7, "0/0": 4}
    assert both.idle_until({"1/0": "m", "1/1": "n"})
    assert not both.idle_until({"1/0": "m", "1/1": "o"})
    assert not both.idle_until({"1/0": "m", "1/1": "n", "2/0": "p"})
    assert Mirrored.union([one, None]) is None
    assert Mirrored.union([one, Mirrored(dialect="entity")]) is None


@pytest.mark.parametrize("at", [0, 9, 45, 60, -1])
def test_a_flipped_bit_is_found(at: int) -> None:
    body = bytearray(stored(book()))
    body[at] ^= 4
    with pytest.raises(CorruptDataError):
        decode_book(bytes(body), generation=2, shard=3, key="k")


def test_a_book_of_another_shard_is_refused() -> None:
    with pytest.raises(CorruptDataError, match="not its own"):
        decode_book(stored(book()), generation=2, shard=4, key="k")


def test_a_newer_format_is_refused() -> None:
    payload = stored(book())[40:].replace(b'"format_version":1', b'"format_version":9')
    body = MAGIC + hashlib.sha256(payload).digest() + payload
    with pytest.raises(PreconditionError, match="newer version"):
        decode_book(body, generation=2, shard=3, key="k")


# --- the choice -------------------------------------------------------------------------------------------------


async def test_a_choice_is_kept_and_changed_part_by_part() -> None:
    store, clock, ids = MemoryStore(), ManualClock(), Ids()
    assert await read_choice(store) == FollowChoice()
    await change_choice(store, follow=True, changed_at="t1", clock=clock, ids=ids)
    await change_choice(store, mirror="entity", changed_at="t2", clock=clock, ids=ids)
    found = await read_choice(store)
    assert (found.follow, found.mirror, found.changed_at) == (True, "entity", "t2")
    same = await change_choice(store, follow=True, changed_at="t3", clock=clock, ids=ids)
    assert same == found
    await store.put(layout.FOLLOW, b"{}")
    with pytest.raises(CorruptDataError):
        await read_choice(store)


# --- places -----------------------------------------------------------------------------------------------------


def test_book_keeping_among_the_metadata_is_no_item() -> None:
    places = Places(followed_trees(()))
    assert places.ids_named("entities/nouns/metadata/__metadata_index__noun_x_chunk0.json") == []
    assert places.ids_named("metadata/_distributed_config.json") == []
    assert places.ids_named("nouns/a/b.json") == ["a/b"]
    assert places.ids_named("locks/statistics-flush") == []
    assert set(places.listed) == {
        *("nouns/", "metadata/", "verbs/", "verb-metadata/"),
        *("entities/nouns/vectors/", "entities/nouns/metadata/"),
        *("entities/verbs/vectors/", "entities/verbs/metadata/"),
    }


# --- the last words ---------------------------------------------------------------------------------------------


class Log:
    """A change log in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MeteredStore(MemoryStore(self.clock))
        self.now = int(1000 * self.clock.wall())
        self._count = 0

    async def entry(self, operation: str, kind: str, item_id: str, at: int, **data: object) -> None:
        self._count += 1
        time = self.now + at
        body = {"timestamp": time, "operation": operation, "entityType": kind, "entityId": item_id, **data}
        await self.store.put(f"change-log/{time:013d}-{self._count}.json", orjson.dumps(body))

    async def zombies(self, entries: list[StoredObject], *suspects: Suspect) -> set[tuple[Kind, str]]:
        """What the rules of reading make of these entries."""
        made = MemoryStore()
        for entry in entries:
            await made.put(entry.key, entry.body)
        return await Deletions(Fetcher(made)).last_word_is_delete(suspects)


async def test_last_words_agree_with_a_fresh_reading_of_the_log() -> None:
    log = Log()
    words = LastWords(log.store, log.clock)
    await log.entry("delete", "noun", "gone", -10_000)
    await log.entry("delete", "noun", "back", -9_000)
    await log.entry("add", "metadata", "back", -8_000, data={"x": 1})
    await log.entry("delete", "verb", "v", -7_000)
    ids = ["gone", "back", "v", "never"]
    suspects = [*(Suspect(Kind.NOUN, item_id) for item_id in ids), Suspect(Kind.VERB, "v")]
    fresh = await Deletions(Fetcher(log.store)).last_word_is_delete(suspects)
    assert fresh == {(Kind.NOUN, "gone"), (Kind.VERB, "v")}
    assert await log.zombies(await words.about(ids), *suspects) == fresh
    # What comes later is kept up with: also entries whose clock is an hour behind.
    await log.entry("delete", "noun", "never", -3_600_000)
    await log.entry("add", "noun", "gone", 5_000, data={"vector": [1.0] * 500})
    assert {entry.id for entry in await words.sweep()} == {"never"}
    fresh = await Deletions(Fetcher(log.store)).last_word_is_delete(suspects)
    assert fresh == {(Kind.NOUN, "never"), (Kind.VERB, "v")}
    assert await log.zombies(await words.about(ids), *suspects) == fresh


async def test_a_sweep_of_a_log_without_news_lists_only() -> None:
    log = Log()
    words = LastWords(log.store, log.clock)
    for number in range(30):
        await log.entry("delete", "noun", f"n{number}", -number * 1000)
    assert len(await words.sweep()) == 30
    before = dict(log.store.calls)
    assert await words.sweep() == []
    assert {kind for kind, count in log.store.calls.items() if count != before[kind]} == {"list"}


async def test_nothing_begins_beside_a_way_back() -> None:
    clock, ids, store = ManualClock(), Ids(), MemoryStore()
    shards = {0: ShardPlacement(owner="a", epoch=1)}
    serving = GenerationPlacement(state="serving", shard_count=1, shards=shards)
    kept = GenerationPlacement(state="following", shard_count=1, follows=1, follow_from={0: 3}, shards=shards)
    routing = Routing(
        namespace="memory://n",
        epoch=4,
        nonce="n",
        leader_epoch=1,
        active=1,
        write=1,
        migration="m",
        generations={0: kept, 1: serving},
    )
    await store.put(layout.ROUTING, routing.encode())
    for wish in ({"follow": True}, {"mirror": "entity"}):
        with pytest.raises(PreconditionError) as refused:
            await change_choice(store, **wish, changed_at="t", clock=clock, ids=ids)  # type: ignore[arg-type]
        assert "complete" in refused.value.remedy
    await change_choice(store, follow=False, changed_at="t", clock=clock, ids=ids)
    # Forward again after a rollback, and complete: what was said when is spread over two logs.
    done = routing.model_copy(update={"migration": None, "generations": {1: serving}, "rolled_back_from": 1})
    await store.put(layout.ROUTING, done.encode())
    for wish in ({"follow": True}, {"mirror": "entity"}):
        with pytest.raises(PreconditionError):
            await change_choice(store, **wish, changed_at="t", clock=clock, ids=ids)  # type: ignore[arg-type]
    # Back, and aborted: one log has it all.
    back = routing.model_copy(
        update={"active": 0, "write": 0, "migration": None, "generations": {0: serving}, "rolled_back_from": 1}
    )
    await store.put(layout.ROUTING, back.encode())
    assert (await change_choice(store, follow=True, mirror="entity", changed_at="t", clock=clock, ids=ids)).follow


async def test_nothing_begins_where_another_model_embedded_the_texts() -> None:
    clock, ids, store = ManualClock(), Ids(), MemoryStore()
    serving = GenerationPlacement(state="serving", shard_count=1, shards={0: ShardPlacement(owner="a", epoch=1)})
    routing = Routing(
        namespace="memory://n", epoch=4, nonce="n", leader_epoch=1, active=2, write=2, generations={2: serving}
    )
    await store.put(layout.ROUTING, routing.encode())
    first = Spec(generation=0, dimensions=8, shard_count=1, source="brainy")
    model = EmbeddingIdentity(model="another", dimensions=16)
    changed = first.model_copy(
        update={"generation": 1, "dimensions": 16, "embedding": model, "reembedding": Reembedding()}
    )
    later = changed.model_copy(update={"generation": 2, "source": "1", "reembedding": None})
    for spec in (first, changed, later):
        await store.put(layout.spec(spec.generation), spec.encode())
    for wish in ({"follow": True}, {"mirror": "entity"}):
        with pytest.raises(PreconditionError, match="another model"):
            await change_choice(store, **wish, changed_at="t", clock=clock, ids=ids)  # type: ignore[arg-type]
    await change_choice(store, follow=False, changed_at="t", clock=clock, ids=ids)
    await store.put(layout.spec(1), changed.model_copy(update={"reembedding": None}).encode())
    assert (await change_choice(store, follow=True, changed_at="t", clock=clock, ids=ids)).follow
