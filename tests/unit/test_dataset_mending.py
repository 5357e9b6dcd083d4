"""Objects read again after they were mended: the rules of the tree decide."""

from __future__ import annotations

import json

import pytest

from brainy.bucket.items import Noun, Verb
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.mending import ALONE, GONE, Mended, Reading, read_again
from brainy.errors import PreconditionError
from brainy.store.memory import MemoryStore


def noun(item_id: str, *vector: float) -> bytes:
    return json.dumps({"id": item_id, "vector": vector or [1.0, 2.0], "connections": {}}).encode()


def verb(item_id: str) -> bytes:
    return json.dumps({"id": item_id, "vector": [1.0], "connections": {}}).encode()


RELATION = b'{"sourceId": "a", "targetId": "b", "type": "likes", "weight": 0.5}'


async def bucket(**extra: bytes) -> MemoryStore:
    store = MemoryStore()
    objects = {
        "nouns/a.json": b"<html>",
        "metadata/a.json": b'{"name": "A"}',
        "nouns/b.json": noun("b"),
        "metadata/b.json": b"{broken",
        "verbs/v.json": verb("v"),
        "verb-metadata/v.json": b"",
        "nouns/other.json": noun("other"),
        **{key.replace("__", "/").replace("_json", ".json"): body for key, body in extra.items()},
    }
    for key, body in objects.items():
        await store.put(key, body)
    return store


async def again(
    store: MemoryStore, objects: dict[str, bytes | None], *trees: str, believe_deletes: bool = True
) -> dict[str, Reading]:
    mended = [Mended(key=key, body=body, beside={}) for key, body in objects.items()]
    readings = await read_again(store, trees or ("flat",), mended, believe_deletes=believe_deletes)
    assert [reading.key for reading in readings] == list(objects)
    return {reading.key: reading for reading in readings}


async def test_mended_objects_are_the_items_a_whole_reading_would_find() -> None:
    store = await bucket()
    mended: dict[str, bytes | None] = {
        "nouns/a.json": noun("a", 3.0, 4.0),
        "metadata/b.json": b'{"name": "B"}',
        "verb-metadata/v.json": RELATION,
    }
    found = await again(store, mended)
    for key, body in mended.items():
        await store.put(key, body or b"")
    whole: dict[str, Noun | Verb] = {}
    async for batch in BrainyTreeSource(store, ("flat",)).stream(shards=(0,), shard_count=1):
        assert not batch.quarantined
        whole.update((item.id, item) for item in (*batch.nouns, *batch.verbs))
    assert found["nouns/a.json"].item == whole["a"]
    assert found["metadata/b.json"].item == whole["b"]
    assert found["verb-metadata/v.json"].item == whole["v"]
    # A noun without readable metadata has been there all along.
    assert found["metadata/b.json"].before == Noun(id="b", vector=whole["b"].vector).digest()
    assert found["nouns/a.json"].before == found["verb-metadata/v.json"].before == b""


async def test_what_is_still_damaged_says_why() -> None:
    store = await bucket()
    found = await again(
        store,
        {
            "nouns/a.json": b'{"id": "a", "vector": [1',
            "metadata/b.json": b"\xff",
            "verbs/v.json": verb("v"),
            "nouns/gone.json": None,
            "metadata/nobody.json": b"{}",
            "nouns/odd.txt": b"?",
            "nouns/twin.json": noun("other"),
        },
    )
    assert {key: (reading.item, reading.reason) for key, reading in found.items()} == {
        "nouns/a.json": (None, "not-json"),
        "metadata/b.json": (None, "not-json"),
        # Its other half is the one that is damaged.
        "verbs/v.json": (None, ALONE),
        "nouns/gone.json": (None, GONE),
        "metadata/nobody.json": (None, ALONE),
        "nouns/odd.txt": (None, "foreign-object"),
        "nouns/twin.json": (None, "duplicate-id"),
    }


async def test_the_id_inside_counts() -> None:
    found = await again(await bucket(), {"nouns/a.json": noun("a2")})
    item = found["nouns/a.json"].item
    assert item is not None
    assert (item.id, item.metadata) == ("a2", b'{"name":"A"}')


async def test_what_was_deleted_later_stays_deleted_unless_it_is_revived() -> None:
    store = await bucket(
        **{
            "entities__nouns__vectors__z_json": b"<html>",
            "entities__nouns__metadata__z_json": b"null",
            "change-log__0000000000005-a_json": json.dumps(
                {"timestamp": 5, "operation": "delete", "entityType": "noun", "entityId": "z"}
            ).encode(),
        }
    )
    mended: dict[str, bytes | None] = {"entities/nouns/vectors/z.json": noun("z")}
    (reading,) = (await again(store, mended, "flat", "entity")).values()
    assert (reading.item, reading.reason) == (None, "suspected-zombie")
    (revived,) = (await again(store, mended, "flat", "entity", believe_deletes=False)).values()
    assert revived.item is not None


async def test_copies_stand_in_for_what_the_bucket_lost() -> None:
    store = await bucket()
    await store.delete("metadata/a.json")
    mended = Mended(key="nouns/a.json", body=noun("a"), beside={"metadata/a.json": b'{"kept": 1}'})
    (reading,) = await read_again(store, ("flat",), [mended])
    assert reading.item is not None
    assert reading.item.metadata == b'{"kept":1}'
    await store.put("metadata/a.json", b'{"newer": 1}')
    (reading,) = await read_again(store, ("flat",), [mended])
    assert reading.item is not None
    assert reading.item.metadata == b'{"newer":1}'


async def test_a_view_is_not_written_to() -> None:
    from brainy.dataset.mending import _View

    view = _View(MemoryStore(), {}, believe_deletes=True)
    for call in (view.put("k", b""), view.put_if_absent("k", b""), view.put_if_match("k", b"", "e"), view.delete("k")):
        with pytest.raises(PreconditionError):
            await call
