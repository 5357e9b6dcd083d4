"""Sparse import and text search through real front doors, with a small model of our own."""

from __future__ import annotations

import asyncio
import functools
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from node_cluster import Cluster, spec, world_of

from brainy.bucket.embedding import EmbeddingIdentity
from brainy.embedding.function import FunctionEmbedder
from brainy.errors import (
    BrainyError,
    EmbeddingError,
    EmbeddingMismatchError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.sync import Brainy
from brainy.sdk.values import ImportResult

DIMENSIONS = 64


@functools.cache
def direction(word: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIMENSIONS).astype(np.float32)


def words(texts: list[str]) -> np.ndarray:
    """Add up a direction for each word."""
    return np.stack([np.sum([direction(word) for word in text.lower().split()], axis=0) for text in texts])


class Counting:
    """An embedder that remembers what it was given, and may fail."""

    def __init__(self, model: str = "words", *, fail_after: int | None = None) -> None:
        self.identity = EmbeddingIdentity(model=model, dimensions=DIMENSIONS)
        self.texts: list[str] = []
        self.fail_after = fail_after

    def embed(self, texts: Any) -> np.ndarray:
        if self.fail_after is not None and len(self.texts) >= self.fail_after:
            raise UnavailableError("gone", remedy="wait")
        self.texts.extend(texts)
        return words(list(texts))


async def running(directory: Path, *, dimensions: int = DIMENSIONS) -> Cluster:
    made = Cluster(world_of(directory, spec(dimensions=dimensions, shards=2)))
    for node_id in "ab":
        await made.add(node_id)
    made.world.place(0, 0, "a")
    made.world.place(0, 1, "b")
    made.settle()
    return made


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two nodes, each with one of two shards."""
    made = await running(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncBrainy]:
    async with AsyncBrainy([node.server.address for node in cluster.nodes.values()]) as made:
        yield made


def data(nouns: list[Any], verbs: list[Any] | None = None) -> dict[str, Any]:
    return {"nouns": nouns, "verbs": verbs or [], "version": "1.0.0"}


def texts(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"doc-{n}", "metadata": {"text": f"number {n} of many", "noun": "Thing"}}
        for n in range(start, start + count)
    ]


def summary(result: ImportResult) -> tuple[int, int, int, int, int]:
    return (
        result.nouns_imported,
        result.verbs_imported,
        result.embedded,
        result.unchanged,
        len(result.skipped),
    )


async def test_the_guides_sparse_data(client: AsyncBrainy) -> None:
    sparse = data(
        [
            {
                "id": "doc-1",
                "metadata": {"text": "Machine learning algorithms", "noun": "Thing", "category": "technology"},
            }
        ]
    )
    result = await client.import_sparse_data(sparse, words)
    assert summary(result) == (1, 0, 1, 0, 0)
    noun = await client.get("doc-1")
    assert noun is not None and noun.vector is not None
    assert noun.metadata == sparse["nouns"][0]["metadata"]
    assert noun.vector.tolist() == words(["Machine learning algorithms"])[0].tolist()
    recorded = (await client.get_statistics()).embedding
    assert recorded is not None
    assert (recorded.model, recorded.dimensions) == (f"{__name__}.words", DIMENSIONS)


async def test_many_rows_are_counted_once_and_found_by_their_text(client: AsyncBrainy) -> None:
    embedder = Counting()
    told: list[tuple[int, int]] = []
    rows = texts(700)
    result = await client.import_sparse_data(data(rows), embedder, on_progress=lambda *at: told.append(at))
    assert summary(result) == (700, 0, 700, 0, 0)
    assert told[-1] == (700, 700)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert (await client.get_statistics()).noun_count == 700
    client.embedder = embedder
    (hit,) = await client.search("Many of NUMBER 345", 1)
    assert hit.id == "doc-345"
    hits = await client.search_many(["number 7 of many", "number 699 of many"], 1)
    assert [found[0].id for found in hits] == ["doc-7", "doc-699"]


async def test_a_repeat_embeds_nothing_and_doubles_nothing(client: AsyncBrainy) -> None:
    rows = texts(300) + [{"metadata": {"text": "without an id"}}] * 2
    assert summary(await client.import_sparse_data(data(rows), Counting())) == (302, 0, 302, 0, 0)
    again = Counting()
    assert summary(await client.import_sparse_data(data(rows[::-1]), again)) == (0, 0, 0, 302, 0)
    assert again.texts == []
    assert (await client.get_statistics()).noun_count == 302
    # What was changed meanwhile is imported anew, and only that.
    await client.add(words(["else"])[0], {"text": "else"}, id="doc-5")
    await client.delete("doc-6")
    assert summary(await client.import_sparse_data(data(rows), again)) == (2, 0, 2, 300, 0)
    assert sorted(again.texts) == ["number 5 of many", "number 6 of many"]


async def test_an_import_that_failed_goes_on_where_it_was(client: AsyncBrainy) -> None:
    rows = texts(1000)
    with pytest.raises(UnavailableError) as caught:
        await client.import_sparse_data(data(rows), Counting(fail_after=500))
    written = int(caught.value.fields["nouns_imported"])
    # The windows before were written, and are counted.
    assert written == (await client.get_statistics()).noun_count == 512
    again = Counting()
    assert summary(await client.import_sparse_data(data(rows), again)) == (488, 0, 488, 512, 0)
    assert len(again.texts) == 488


async def test_of_equal_ids_the_last_row_stays_also_after_a_repeat(client: AsyncBrainy) -> None:
    rows = [{"id": "same", "metadata": {"text": f"edition {n}"}} for n in range(5)] + texts(300)
    rows.append({"id": "same", "metadata": {"text": "last edition"}})
    for _ in range(2):
        await client.import_sparse_data(data(rows), Counting())
        noun = await client.get("same")
        assert noun is not None and noun.metadata == {"text": "last edition"}


async def test_vectors_that_are_there_are_kept(client: AsyncBrainy) -> None:
    own = np.arange(1, DIMENSIONS + 1, dtype=np.float32)
    rows = [
        {"id": "own", "vector": own.tolist(), "metadata": {"text": "ignored"}},
        {"id": "empty", "vector": [], "metadata": {"text": "embedded"}},
        {"id": "bare", "vector": own.tolist()},
        {"id": "null", "vector": [None] * DIMENSIONS, "metadata": {"text": "x"}},
        {"id": "short", "vector": [1.0, 2.0], "metadata": {"text": "x"}},
        {"id": "words", "vector": "1,2", "metadata": {"text": "x"}},
        {"id": "zero", "vector": [0.0] * DIMENSIONS},
        *({"id": f"long-{n}", "vector": [1.0] * 99} for n in range(50)),
    ]
    embedder = Counting()
    result = await client.import_sparse_data(data(rows), embedder)
    assert summary(result) == (3, 0, 1, 0, 54)
    assert embedder.texts == ["embedded"]
    noun, bare = await client.get("own"), await client.get("bare")
    assert noun is not None and noun.vector is not None and noun.vector.tolist() == own.tolist()
    assert bare is not None and bare.metadata is None
    assert {(row.id, row.reason) for row in result.skipped if not row.id.startswith("long")} == {
        ("null", "INVALID_VECTOR"),
        ("short", "INVALID_DIMENSION"),
        ("words", "INVALID_VECTOR"),
        ("zero", "INVALID_VECTOR"),
    }


BAD_ROWS = [
    (None, "INVALID_ARGUMENT"),
    ("text", "INVALID_ARGUMENT"),
    ([1], "INVALID_ARGUMENT"),
    ({}, "NO_TEXT"),
    ({"id": "a"}, "NO_TEXT"),
    ({"id": "b", "metadata": None}, "NO_TEXT"),
    ({"id": "c", "metadata": {"text": ""}}, "NO_TEXT"),
    ({"id": "d", "metadata": {"text": None}}, "NO_TEXT"),
    ({"id": "e", "metadata": {"text": 5}}, "NO_TEXT"),
    ({"id": "f", "metadata": {"text": ["x", 5]}}, "NO_TEXT"),
    ({"id": 7, "metadata": {"text": "x"}}, "INVALID_ID"),
    ({"id": "", "metadata": {"text": "x"}}, "INVALID_ID"),
    ({"id": "a\0b", "metadata": {"text": "x"}}, "INVALID_ID"),
    ({"id": "\ud800", "metadata": {"text": "x"}}, "INVALID_ID"),
    ({"id": "x" * 1025, "metadata": {"text": "x"}}, "INVALID_ID"),
    ({"id": "g", "metadata": {"text": "x" * (1 << 20)}}, "INVALID_METADATA"),
    ({"id": "h", "metadata": {"text": "\ud800"}}, "INVALID_METADATA"),
    ({"id": "i", "metadata": {"text": "x", "when": object()}}, "INVALID_METADATA"),
]


async def test_every_bad_row_is_told_and_no_other_suffers(client: AsyncBrainy) -> None:
    rows: list[Any] = []
    for n, (bad, _) in enumerate(BAD_ROWS):
        rows += [bad, {"id": f"good-{n}", "metadata": {"text": f"good {n}"}}]
    result = await client.import_sparse_data(data(rows), Counting())
    assert (result.nouns_imported, len(result.skipped)) == (len(BAD_ROWS), len(BAD_ROWS))
    assert [(row.kind, row.number, row.reason) for row in result.skipped] == [
        ("noun", 1 + 2 * n, reason) for n, (_, reason) in enumerate(BAD_ROWS)
    ]
    assert all(row.message for row in result.skipped)
    assert {noun.id async for noun in client.scan()} == {f"good-{n}" for n in range(len(BAD_ROWS))}


async def test_verbs_follow_their_ends(client: AsyncBrainy) -> None:
    verbs = [
        {"id": "v1", "sourceId": "doc-0", "targetId": "doc-1", "type": "contains", "weight": 0.5},
        {"id": "v2", "source": "doc-1", "target": "doc-0", "verb": "partOf", "metadata": {"text": "says something"}},
        {"sourceId": "doc-0", "targetId": "doc-0", "metadata": {"verb": "likes"}},
        {"id": "v4", "sourceId": "doc-0", "targetId": "doc-0"},
        {"id": "gone", "sourceId": "doc-0", "targetId": "nobody", "type": "likes"},
        {"id": "half", "sourceId": "doc-0"},
        {"id": "heavy", "sourceId": "doc-0", "targetId": "doc-1", "weight": "1"},
        {"id": "nan", "sourceId": "doc-0", "targetId": "doc-1", "weight": float("nan")},
    ]
    embedder = Counting()
    result = await client.import_sparse_data(data(texts(2), verbs), embedder)
    assert summary(result) == (2, 4, 4, 0, 4)
    assert {(row.kind, row.number, row.reason) for row in result.skipped} == {
        ("verb", 5, "NOT_FOUND"),
        ("verb", 6, "INVALID_ID"),
        ("verb", 7, "INVALID_ARGUMENT"),
        ("verb", 8, "INVALID_ARGUMENT"),
    }
    found = {verb.id: verb async for verb in client.scan_verbs()}
    assert len(found) == 4
    assert (found["v1"].type, found["v1"].weight, found["v1"].vector) == ("contains", 0.5, None)
    assert found["v2"].vector is not None
    assert found["v2"].vector.tolist() == words(["says something"])[0].tolist()
    assert sorted(verb.type for verb in found.values()) == ["contains", "likes", "partOf", "relatedTo"]
    again = Counting()
    assert summary(await client.import_sparse_data(data(texts(2), verbs), again)) == (0, 2, 0, 4, 4)
    assert again.texts == []
    assert (await client.get_statistics()).verb_count == 4


async def test_files_of_every_form(client: AsyncBrainy, tmp_path: Path) -> None:
    verb = {"id": "v", "sourceId": "doc-0", "targetId": "doc-1", "type": "likes"}
    whole = tmp_path / "sparse.json"
    whole.write_bytes(b"\xef\xbb\xbf" + orjson.dumps(data(texts(2), [verb]), option=orjson.OPT_INDENT_2))
    assert summary(await client.import_sparse_data(whole, Counting())) == (2, 1, 2, 0, 0)
    # A verb before its ends, blank lines, a broken one, one cut off, and no line end at the end.
    lines = [
        orjson.dumps(verb),
        b"",
        *map(orjson.dumps, texts(2, 2)),
        b"{oops",
        b"7",
        orjson.dumps(texts(1, 4)[0])[:-1],
    ]
    for name in ("rows.jsonl", "rows.txt"):
        path = tmp_path / name
        first = lines if name.endswith("jsonl") else [lines[2], *lines]
        path.write_bytes(b"\n".join(first))
        shift = len(first) - len(lines)
        result = await client.import_sparse_data(str(path), Counting())
        assert [(row.number - shift, row.reason) for row in result.skipped] == [
            (5, "INVALID_ARGUMENT"),
            (6, "INVALID_ARGUMENT"),
            (7, "INVALID_ARGUMENT"),
        ]
        assert result.verbs_imported == 1
    assert (await client.get_statistics()).noun_count == 4


@pytest.mark.parametrize(
    "body", [b"", b"[", b'{"nouns": 5, "verbs": []}', b'"text"', b'{"nouns": [],', b"\xff\xfe", b"7", b"null"]
)
async def test_what_is_no_sparse_data_is_refused_as_a_whole(client: AsyncBrainy, tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "sparse.json"
    path.write_bytes(body)
    with pytest.raises(InvalidRequestError) as caught:
        await client.import_sparse_data(path, Counting())
    assert "nothing was written" in caught.value.remedy
    assert (await client.get_statistics()).noun_count == 0


async def test_wrong_values_and_absent_files(client: AsyncBrainy, tmp_path: Path) -> None:
    wrong: Any
    for wrong in ({}, {"version": "1.0.0"}, {"nouns": {}}, 7, None):
        with pytest.raises(InvalidRequestError):
            await client.import_sparse_data(wrong, Counting())
    with pytest.raises(NotFoundError):
        await client.import_sparse_data(tmp_path / "nothing.json", Counting())
    assert summary(await client.import_sparse_data(data([]), Counting())) == (0, 0, 0, 0, 0)


async def test_two_models_in_one_space_are_refused(cluster: Cluster, client: AsyncBrainy) -> None:
    await client.import_sparse_data(data(texts(10)), Counting("first"))
    other = Counting("second")
    with pytest.raises(EmbeddingMismatchError) as caught:
        await client.import_sparse_data(data(texts(10, 10)), other)
    assert "first" in caught.value.fields["recorded"]
    assert "second" in caught.value.fields["given"]
    assert caught.value.data_safe
    assert other.texts == []  # before anything is embedded
    # A client that knew nothing else: the server refuses its queries and its writes.
    blind = AsyncBrainy([node.server.address for node in cluster.nodes.values()], namespace=client.namespace)
    async with blind:
        blind.embedder = other
        with pytest.raises(EmbeddingMismatchError):
            await blind.search("number 3")
        with pytest.raises(EmbeddingMismatchError):
            await blind.add("a text")
        vector = blind._noun(words(["x"])[0], None, "x")
        with pytest.raises(EmbeddingMismatchError) as caught:
            await blind._upsert([vector], embedding=other.identity)
        assert "first" in caught.value.fields["recorded"]
        # Vectors of no model's are the caller's own business.
        await blind.add(words(["x"])[0], id="x")
    assert (await client.get_statistics()).noun_count == 11


async def test_of_two_first_imports_one_model_wins(client: AsyncBrainy) -> None:
    results = await asyncio.gather(
        *(client.import_sparse_data(data(texts(300, 300 * n)), Counting(f"model-{n}")) for n in range(2)),
        return_exceptions=True,
    )
    lost = [result for result in results if isinstance(result, EmbeddingMismatchError)]
    won = [result for result in results if isinstance(result, ImportResult)]
    assert (len(lost), len(won)) == (1, 1)
    assert lost[0].fields["nouns_imported"] == "0"
    assert (await client.get_statistics()).noun_count == won[0].nouns_imported == 300


async def test_a_model_of_another_length_is_refused(tmp_path: Path) -> None:
    cluster = await running(tmp_path, dimensions=3)
    async with AsyncBrainy([cluster["a"].server.address]) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client._upsert([client._noun([1.0, 2.0, 3.0], None, "x")], embedding=Counting().identity)
        assert caught.value.reason == "INVALID_DIMENSION"
        result = await client.import_sparse_data(data(texts(5)), Counting())
        assert [row.reason for row in result.skipped] == ["INVALID_DIMENSION"] * 5
        statistics = await client.get_statistics()
        assert (statistics.embedding, statistics.noun_count) == (None, 0)
        with pytest.raises(EmbeddingMismatchError, match="nobody recorded"):
            await client.search("a text")
    await cluster.close()


class Wrong(Counting):
    """Answers what is no embedding of its texts."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def embed(self, texts: Any) -> Any:
        return self.answer(super().embed(texts))


@pytest.mark.parametrize(
    "answer",
    [lambda rows: rows[:-1], lambda rows: rows[:, :-1], lambda rows: rows * np.nan, lambda rows: None],
    ids=["fewer", "shorter", "NaN", "nothing"],
)
async def test_a_wrong_answer_ends_the_import_with_nothing_of_it_written(client: AsyncBrainy, answer: Any) -> None:
    with pytest.raises(EmbeddingError) as caught:
        await client.import_sparse_data(data(texts(5)), Wrong(answer))
    assert caught.value.fields["nouns_imported"] == "0"
    assert (await client.get_statistics()).noun_count == 0


async def test_zero_vectors_of_a_model_are_skipped_rows(client: AsyncBrainy) -> None:
    result = await client.import_sparse_data(data(texts(5)), Wrong(lambda rows: rows * [[1], [0], [1], [1], [0]]))
    assert [(row.id, row.reason) for row in result.skipped] == [
        ("doc-1", "INVALID_VECTOR"),
        ("doc-4", "INVALID_VECTOR"),
    ]
    assert (await client.get_statistics()).noun_count == 3


async def test_texts_instead_of_vectors(client: AsyncBrainy) -> None:
    client.embedder = FunctionEmbedder(words, model="words")
    await client.add("a red house", {"colour": "red"}, id="a")
    await client.add("a blue car", id="b")
    assert [hit.id for hit in await client.search("the blue car", 1)] == ["b"]
    first, second = await client.get("a"), await client.get("b")
    assert first is not None and first.metadata == {"colour": "red"}
    assert second is not None and second.metadata == {"text": "a blue car"}
    for blank in ("", "  "):
        for call in (client.search(blank), client.add(blank), client.search_many(["x", blank])):
            with pytest.raises(InvalidRequestError) as caught:
                await call
            assert caught.value.reason == "NO_TEXT"


async def test_a_client_without_a_model_of_its_own_follows_the_record(client: AsyncBrainy) -> None:
    embedder = Counting()
    await client.import_sparse_data(data(texts(20)), embedder)
    # The model it has just used is the recorded one: no other has to be found.
    assert (await client.search("number 7 of many", 1))[0].id == "doc-7"
    asked = len(embedder.texts)
    assert (await client.search("number 8 of many", 1))[0].id == "doc-8"
    assert len(embedder.texts) == asked + 1
    # It believed in another model than the namespace records by now: it looks again, once.
    assert client._text_model is not None
    client._text_model = (None, replace(client._text_model[1], identity=Counting("stale").identity))
    with pytest.raises(EmbeddingMismatchError) as caught:
        await client.search("number 9 of many")
    assert "not at hand" in caught.value.message
    with pytest.raises(InvalidRequestError):
        await client.add("a text", id="\ud800")


async def test_a_read_only_client_embeds_nothing(cluster: Cluster) -> None:
    embedder = Counting()
    async with AsyncBrainy([cluster["a"].server.address], read_only=True) as client:
        with pytest.raises(PreconditionError):
            await client.import_sparse_data(data(texts(5)), embedder)
    assert embedder.texts == []


async def test_a_cancelled_import_leaves_nothing_running(client: AsyncBrainy) -> None:
    started = asyncio.Event()

    def tell(done: int, total: int) -> None:
        started.set()

    task = asyncio.create_task(client.import_sparse_data(data(texts(5000)), Counting(), on_progress=tell))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [other for other in asyncio.all_tasks() if "_send_all" in repr(other) or "_write_" in repr(other)]


async def test_blocking_client(cluster: Cluster) -> None:
    def work() -> None:
        with Brainy(AsyncBrainy([cluster["a"].server.address])) as brainy:
            brainy.embedder = Counting()
            assert summary(brainy.import_sparse_data(data(texts(3)))) == (3, 0, 3, 0, 0)
            assert brainy.search("number 2", 1)[0].id == "doc-2"
            with pytest.raises(BrainyError):
                brainy.import_sparse_data(data(texts(3)), "no such model")

    await asyncio.to_thread(work)
