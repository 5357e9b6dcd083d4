"""The book of seen versions: what a listing has to say to be worth a read, and own writes that are not."""

from __future__ import annotations

import numpy as np
import pytest

from brainy.bucket.partition import key_hash, shard_of
from brainy.legacy.seen import ENTRY_BYTES, Place, SeenBook, Version, version_of

PREFIXES = ("nouns/", "metadata/", "nouns/person/")


def listed(*objects: tuple[str, str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes, tags and seconds of (id, etag, seconds)."""
    return (
        np.array([key_hash(item_id) for item_id, _, _ in objects], np.uint64),
        np.array([version_of(etag).tag for _, etag, _ in objects], np.uint64),
        np.array([seconds for _, _, seconds in objects], np.uint32),
    )


def test_what_was_seen_is_no_news_and_everything_else_is() -> None:
    book = SeenBook(PREFIXES)
    book.saw("nouns/a.json", version_of("e1", 100))
    book.saw("nouns/b.json", version_of("e2", 100))
    book.saw("nouns/c.json", version_of("e3", 100))
    comparison = book.compare()
    page = listed(("a", "e1", 100), ("b", "other", 100), ("c", "e3", 101), ("d", "e4", 100))
    assert comparison.page("nouns/", *page).tolist() == [False, True, True, True]
    assert comparison.missing("nouns/").tolist() == []
    assert comparison.missing("metadata/").tolist() == []


def test_what_is_no_longer_listed_is_missing() -> None:
    book = SeenBook(PREFIXES)
    for item_id in "abc":
        book.saw(f"nouns/{item_id}.json", version_of("e", 1))
    comparison = book.compare()
    comparison.page("nouns/", *listed(("b", "e", 1)))
    assert set(comparison.missing("nouns/").tolist()) == {key_hash("a"), key_hash("c")}
    book.saw("nouns/a.json", None)
    assert book.version("nouns/a.json") is None
    assert len(book) == 2


def test_own_writes_are_seen_whatever_the_time_of_the_store() -> None:
    book = SeenBook(PREFIXES)
    book.hold("nouns/a.json")
    assert set(book.held) == {"nouns/a.json"}
    book.wrote("nouns/a.json", '"e9"')
    assert not book.held
    comparison = book.compare()
    assert comparison.page("nouns/", *listed(("a", "e9", 12345))).tolist() == [False]
    book.hold("nouns/a.json")
    book.deleted("nouns/a.json")
    assert book.version("nouns/a.json") is None
    book.hold("nouns/a.json")
    book.hold("nouns/a.json")
    book.release("nouns/a.json")
    assert set(book.held) == {"nouns/a.json"}


def test_the_longest_prefix_names_the_place() -> None:
    book = SeenBook(PREFIXES)
    assert book.locate("nouns/person/x.json") == ("nouns/person/", "x")
    assert book.locate("nouns/x/y.json") == ("nouns/", "x/y")
    assert book.locate("locks/x.json") is None
    assert book.locate("nouns/x") is None


@pytest.mark.parametrize(("one", "other", "same"), [(5, 5, True), (5, 0, True), (0, 5, True), (5, 6, False)])
def test_a_version_without_a_time_is_known_by_its_etag(one: int, other: int, same: bool) -> None:
    assert Version(1, one).same_as(Version(1, other)) is same
    assert not Version(1, one).same_as(Version(2, other))


def test_quotes_do_not_make_another_version() -> None:
    assert version_of('"abc"', 7.9) == version_of("abc", 7.1)
    assert version_of("", 7.0, 3) != version_of("", 7.0, 4)


def test_a_book_is_cut_and_joined_by_shards() -> None:
    book = SeenBook(PREFIXES)
    for number in range(500):
        book.saw(f"nouns/n{number}.json", version_of(f"e{number}", number + 1))
        book.saw(f"metadata/n{number}.json", version_of(f"m{number}", number + 1))
    parts = [book.part(shard, 3) for shard in range(3)]
    assert sum(map(len, parts)) == len(book) == 1000
    assert parts[shard_of("n7", 3)].version("nouns/n7.json") == version_of("e7", 8)
    assert parts[(shard_of("n7", 3) + 1) % 3].version("nouns/n7.json") is None
    whole = SeenBook.union(parts)
    assert all(whole.version(f"metadata/n{n}.json") == version_of(f"m{n}", n + 1) for n in range(500))


def test_a_million_objects_take_twenty_megabytes() -> None:
    count = 1_000_000
    generator = np.random.default_rng(1)
    hashes = generator.integers(0, 2**63, count, dtype=np.uint64)
    book = SeenBook(("nouns/",))
    book.places["nouns/"] = Place.of(hashes, hashes, np.ones(count, np.uint32))
    assert sum(array.nbytes for array in book.places["nouns/"].arrays) == book.nbytes == ENTRY_BYTES * len(book)
    assert book.nbytes <= 20_000_000
    comparison = book.compare()
    assert not comparison.page("nouns/", hashes[:1000], hashes[:1000], np.ones(1000, np.uint32)).any()
    assert len(comparison.missing("nouns/")) == len(book) - 1000
