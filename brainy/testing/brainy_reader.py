"""A reader with the rules of real Brainy versions, to check that what was written for them is what they see.

Written from the description of the format and of what each version was observed to read, not from this product's own
reader: nothing of ``brainy.legacy`` is used. It follows the code paths of one version at a time:

    0.20 - 0.35    flat tree; a verb is one object that names its ends
    0.36 - 0.48.0  flat tree; a verb needs its verb-metadata object
    0.48.1 - 1.1.1 the same under entities/

Everywhere: an object that lacks ``id``, ``vector`` or ``connections`` is absent; metadata is any JSON, ``null`` is
none; ``get`` hides a top-level ``id`` of the metadata; broken JSON is skipped. Listings take the id from the key
without its first ".json". A noun whose vector has another length than required is deleted at start (here: reported).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from brainy.store.base import ObjectStore

_ENTITIES = (0, 48, 1)
_SPLIT = (0, 36, 0)
_FIRST_LOG = (0, 26, 0)
_SYSTEM_STATISTICS = (0, 54, 3)
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadNoun:
    """A noun as that Brainy has it in memory."""

    id: str
    vector: list[float | None]
    metadata: Any = None
    level: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadVerb:
    """A verb as that Brainy has it in memory."""

    id: str
    source_id: str
    target_id: str
    type: str
    #: 1.0 where none is stored.
    weight: float
    vector: list[float | None]
    metadata: Any
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a start of that version finds."""

    #: Ids it takes into its index.
    loaded: frozenset[str] = frozenset()
    #: Nouns it would delete for the length of their vectors.
    deleted: frozenset[str] = frozenset()
    #: It would never come back from listing the nouns.
    hangs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange:
    """An entry of the change log."""

    key: str
    timestamp: int
    operation: str
    entity_type: str
    entity_id: str
    data: Any = field(default=None)


class BrainyReader:
    """One version of Brainy, as a reader of a bucket."""

    def __init__(self, store: ObjectStore, version: str) -> None:
        """Be a version, given as in its tag (``"0.46.0"``); 0.15 is the oldest."""
        self._store = store
        numbers = [int(part) for part in version.split(".")]
        self.version = tuple(numbers + [0] * (3 - len(numbers)))
        entities = self.version >= _ENTITIES
        self._split = self.version >= _SPLIT
        self._nouns = "entities/nouns/vectors/" if entities else "nouns/"
        self._metadata = "entities/nouns/metadata/" if entities else "metadata/"
        self._verbs = "entities/verbs/vectors/" if entities else "verbs/"
        self._verb_metadata = "entities/verbs/metadata/" if entities else "verb-metadata/"

    # --- what the storage API answers -----------------------------------------------------------

    async def get_noun(self, item_id: str) -> ReadNoun | None:
        """Read one noun with its metadata, as ``get(id)`` does."""
        node = await self._node(self._nouns, item_id)
        if node is None:
            return None
        metadata = await self._json(f"{self._metadata}{item_id}.json")
        if isinstance(metadata, dict):
            metadata = {name: value for name, value in metadata.items() if name != "id"}
        return ReadNoun(id=node["id"], vector=node["vector"], metadata=metadata, level=node.get("level") or 0)

    async def get_stored_metadata(self, item_id: str) -> Any:
        """Read a noun's metadata as the storage API answers it: whole."""
        return await self._json(f"{self._metadata}{item_id}.json")

    async def get_verb(self, item_id: str) -> ReadVerb | None:
        """Read one verb; one that the version cannot put together is absent."""
        own = await self._node(self._verbs, item_id)
        if own is None:
            return None
        said = own
        if self._split:
            said = await self._json(f"{self._verb_metadata}{item_id}.json")
            if not isinstance(said, dict):
                return None
        source, target = said.get("sourceId"), said.get("targetId")
        kind = said.get("type")
        if self.version >= (0, 22, 0):
            source, target = source or said.get("source"), target or said.get("target")
            kind = kind or said.get("verb")
        # The one-piece versions also want a type.
        if not source or not target or not (kind or self._split):
            return None
        created_by = said.get("createdBy") or {}
        return ReadVerb(
            id=own["id"],
            source_id=source,
            target_id=target,
            type=kind or "",
            weight=said.get("weight") or 1.0,
            vector=own["vector"],
            metadata=said.get("metadata") or said.get("data") or {},
            created_by=created_by.get("augmentation", "unknown"),
        )

    async def nouns(self) -> dict[str, ReadNoun]:
        """Every noun its storage holds, by listing all pages."""
        found = [await self.get_noun(item_id) async for item_id in self._listed(self._nouns)]
        return {noun.id: noun for noun in found if noun is not None}

    async def verbs(self) -> dict[str, ReadVerb]:
        """Every verb its storage holds, by listing all pages."""
        found = [await self.get_verb(item_id) async for item_id in self._listed(self._verbs)]
        return {verb.id: verb for verb in found if verb is not None}

    async def visible_nouns(self) -> dict[str, ReadNoun]:
        """The nouns a caller sees: 1.x hides those marked as deleted."""
        nouns = await self.nouns()
        if self.version < (1, 0, 0):
            return nouns
        return {
            name: noun
            for name, noun in nouns.items()
            if not (isinstance(noun.metadata, dict) and noun.metadata.get("deleted") is True)
        }

    # --- start-up -------------------------------------------------------------------------------

    async def start(self, dimensions: int) -> Started:
        """Say what opening the bucket does: only the first page is loaded, or the start hangs; see the format."""
        loaded: set[str] = set()
        deleted: set[str] = set()
        seen = 0
        async for item_id in self._listed(self._nouns):
            seen += 1
            if seen > _PAGE or (self.version >= (0, 49, 0) and seen > 100):
                break
            node = await self._node(self._nouns, item_id)
            if node is None:
                continue
            (loaded if len(node["vector"]) == dimensions else deleted).add(node["id"])
        hangs = self.version >= (0, 49, 0) and seen > 100
        return Started(
            loaded=frozenset(loaded),
            deleted=frozenset(deleted) if self.version >= (0, 25, 0) else frozenset(),
            hangs=hangs,
        )

    # --- change log and statistics --------------------------------------------------------------

    async def changes_since(self, milliseconds: int) -> list[LoggedChange]:
        """``getChangesSince``: of the first thousand entries by key, those later than a time."""
        if self.version < _FIRST_LOG:
            return []
        names: list[str] = []
        async for page in self._store.list("change-log/"):
            names += [meta.key for meta in page]
        changes = []
        for key in sorted(names)[:_PAGE]:
            body = await self._json(key)
            if isinstance(body, dict) and body["timestamp"] > milliseconds:
                changes.append(
                    LoggedChange(
                        key=key,
                        timestamp=body["timestamp"],
                        operation=body["operation"],
                        entity_type=body["entityType"],
                        entity_id=body["entityId"],
                        data=body.get("data"),
                    )
                )
        return sorted(changes, key=lambda change: change.timestamp)

    async def statistics(self, day: str, yesterday: str) -> dict[str, Any] | None:
        """The statistics object it would use on a day (YYYYMMDD), from 22:00 to 2:00 for the newest versions."""
        system = self.version >= _SYSTEM_STATISTICS
        folder = "_system/" if system else "index/"
        keys = [f"{folder}statistics_{day}.json", f"{folder}statistics_{yesterday}.json"]
        if self.version < (0, 54, 5):
            keys.append("index/statistics.json")
        if self.version < (0, 21, 0):
            keys = ["index/statistics.json"]
        for key in keys:
            found = await self._json(key)
            if isinstance(found, dict):
                return found
        return None

    # --- objects --------------------------------------------------------------------------------

    async def _listed(self, prefix: str) -> AsyncIterator[str]:
        names: list[str] = []
        async for page in self._store.list(prefix):
            names += [meta.key for meta in page]
        for item_id in _ids(prefix, sorted(names)):
            yield item_id

    async def _node(self, prefix: str, item_id: str) -> dict[str, Any] | None:
        body = await self._json(f"{prefix}{item_id}.json")
        # JavaScript: an empty array and an empty object are true, an empty text and 0 are not.
        if not isinstance(body, dict) or not body.get("id"):
            return None
        if not isinstance(body.get("vector"), list) or not isinstance(body.get("connections"), dict):
            return None
        if not all(isinstance(ids, list) for ids in body["connections"].values()):
            return None
        return body

    async def _json(self, key: str) -> Any:
        found = await self._store.get(key)
        if found is None:
            return None
        try:
            return json.loads(found.body)
        except ValueError:
            return None


def _ids(prefix: str, keys: Iterable[str]) -> Iterable[str]:
    for key in keys:
        # JavaScript's replace takes the first occurrence.
        yield key[len(prefix) :].replace(".json", "", 1)
