"""Buckets of Brainy's put together by hand, and what is read from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from brainy.bucket.items import Noun, Verb
from brainy.bucket.partition import shard_of
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.legacy.batch import Quarantined
from brainy.store.memory import MemoryStore

#: Prefixes of the entity tree.
E = "entities/nouns/vectors/"
EM = "entities/nouns/metadata/"
EV = "entities/verbs/vectors/"
EVM = "entities/verbs/metadata/"


def noun(item_id: object = "a", vector: object = (1, 2), **more: object) -> bytes:
    """A vector object; of a noun, or of a verb in two objects."""
    return json.dumps({"id": item_id, "vector": vector, "connections": {}} | more, indent=2).encode()


def relation(source: str = "a", target: str = "b", **more: object) -> bytes:
    """A verb-metadata object."""
    ends = {"sourceId": source, "targetId": target, "source": source, "target": target}
    return json.dumps(ends | {"type": "likes", "verb": "likes"} | more).encode()


def verb(item_id: str = "v", source: str = "a", target: str = "b", **more: object) -> bytes:
    """A verb in one object, as up to 0.21."""
    return noun(item_id, sourceId=source, targetId=target, **({"type": "likes"} | more))


def change(time: int, operation: str, kind: str, item_id: str, data: Any = ...) -> tuple[str, bytes]:
    """A change-log object."""
    entry = {"timestamp": time, "operation": operation, "entityType": kind, "entityId": item_id}
    if data is not ...:
        entry["data"] = data
    return f"change-log/{time}-abc{kind}.json", json.dumps(entry | {"instanceId": "1"}).encode()


class Content:
    """What came back."""

    def __init__(self) -> None:
        self.nouns: dict[str, Noun] = {}
        self.verbs: dict[str, Verb] = {}
        self.quarantined: list[Quarantined] = []

    @property
    def reasons(self) -> dict[str, str]:
        return {q.key: str(q.reason) for q in self.quarantined}


async def read(
    objects: Mapping[str, bytes] | MemoryStore,
    trees: Sequence[str] = ("flat",),
    shard_counts: Sequence[int] = (1, 3),
) -> Content:
    """Read everything at once and shard by shard; both must give the same, each thing once."""
    store = objects if isinstance(objects, MemoryStore) else await bucket(objects)
    contents = []
    for shard_count in shard_counts:
        content = Content()
        for shard in range(shard_count):
            source = BrainyTreeSource(store, trees)
            async for batch in source.stream(shards=[shard], shard_count=shard_count):
                for item in batch.nouns:
                    assert item.id not in content.nouns
                    assert shard_of(item.id, shard_count) == shard
                    content.nouns[item.id] = item
                for relation in batch.verbs:
                    assert relation.id not in content.verbs
                    assert shard_of(relation.id, shard_count) == shard
                    content.verbs[relation.id] = relation
                content.quarantined += batch.quarantined
        assert len(content.reasons) == len(content.quarantined)
        contents.append(content)
    for content in contents[1:]:
        assert content.nouns == contents[0].nouns
        assert content.verbs == contents[0].verbs
        assert content.reasons == contents[0].reasons
    return contents[0]


async def bucket(objects: Mapping[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for key, body in objects.items():
        await store.put(key, body)
    return store
