"""What a namespace holds, and what it should hold: the two compared item by item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from brainy.bucket import items
from brainy.dataset.snapshot import stream_current
from brainy.sdk import values
from brainy.sdk.client import AsyncBrainy
from brainy.store.base import ObjectStore

#: Of a noun: its vector's bytes and its metadata. Of a verb its ends, type and weight as well.
Content = tuple[object, ...]


def metadata_of(document: Any) -> bytes:
    """The same bytes for documents that say the same."""
    return b"" if document is None else orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def noun_content(vector: np.ndarray | bytes | None, metadata: Any) -> Content:
    body = vector if isinstance(vector, bytes) else b"" if vector is None else np.asarray(vector, "<f4").tobytes()
    return (body, metadata_of(metadata))


def verb_content(source: str, target: str, kind: str, weight: float | None, metadata: Any) -> Content:
    return (source, target, kind, None if weight is None else float(weight), metadata_of(metadata))


@dataclass(frozen=True, slots=True)
class Holding:
    """Everything of a namespace, by id."""

    nouns: Mapping[str, Content]
    verbs: Mapping[str, Content]

    @classmethod
    async def served(cls, client: AsyncBrainy) -> Holding:
        """What a cluster answers."""
        nouns = {
            noun.id: noun_content(noun.vector, noun.metadata) async for noun in client.scan(include_soft_deleted=True)
        }
        verbs = {verb.id: _verb(verb) async for verb in client.scan_verbs(include_vectors=False)}
        return cls(nouns, verbs)

    @classmethod
    async def stored(cls, store: ObjectStore) -> Holding:
        """What the bucket says without any cluster: the active generation and its log."""
        nouns: dict[str, Content] = {}
        verbs: dict[str, Content] = {}
        async for batch in stream_current(store):
            nouns.update((noun.id, noun_content(noun.vector, _parsed(noun))) for noun in batch.nouns)
            verbs.update(
                (verb.id, verb_content(verb.source_id, verb.target_id, verb.type, verb.weight, _parsed(verb)))
                for verb in batch.verbs
            )
        return cls(nouns, verbs)


def _verb(verb: values.Verb) -> Content:
    return verb_content(verb.source, verb.target, verb.type, verb.weight, verb.metadata)


def _parsed(item: items.Noun | items.Verb) -> Any:
    return orjson.loads(item.metadata) if item.metadata else None


@dataclass(slots=True)
class Verdict:
    """What is wrong; empty lists all through is what every run must come to."""

    #: Acknowledged or there before, and not found.
    missing: list[str] = field(default_factory=list)
    #: Found, though nobody ever wrote it.
    phantom: list[str] = field(default_factory=list)
    #: Found with another content than the last one acknowledged.
    stale: list[str] = field(default_factory=list)
    #: Found, though its deletion was acknowledged.
    resurrected: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.phantom or self.stale or self.resurrected)

    def __str__(self) -> str:
        counted = {name: getattr(self, name) for name in ("missing", "phantom", "stale", "resurrected")}
        return ", ".join(f"{len(ids)} {name} {ids[:3] or ''}".rstrip() for name, ids in counted.items())

    def judge(
        self, found: Mapping[str, Content], expected: Mapping[str, Content | None], unsure: Iterable[str]
    ) -> None:
        """Add what is wrong with one kind of items.

        Args:
            found: what is there.
            expected: what must be; None for what must not, because its deletion was acknowledged.
            unsure: ids whose last operation was never answered: any outcome is right.
        """
        left_out = set(unsure)
        for item, content in expected.items():
            if item in left_out:
                continue
            if content is None:
                if item in found:
                    self.resurrected.append(item)
            elif item not in found:
                self.missing.append(item)
            elif found[item] != content:
                self.stale.append(item)
        self.phantom += found.keys() - expected.keys() - left_out
