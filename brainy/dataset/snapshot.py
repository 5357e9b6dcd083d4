"""The whole current state of a namespace, read straight from the bucket: no cluster needs to run.

What ``stream_current`` yields is the base of the active generation (Brainy's tree, or its segments) with its
change logs replayed over it. Each shard is as of one position of its log; shards are read one after the other, so
while writes go on, the whole is not one instant. An item is yielded exactly once.

Memory: the records behind the bases, one item for each id they touch. The bases stream through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import invariants, layout
from brainy.bucket.items import Noun, Verb, noun_from_proto, verb_from_proto
from brainy.bucket.records import Routing, Spec
from brainy.changelog.reading import read_log
from brainy.dataset.base import ItemBatch, Source
from brainy.dataset.brainy_tree import BrainyTreeSource
from brainy.dataset.generation import BATCH_ITEMS, GenerationSource, is_published, read_spec
from brainy.errors import PreconditionError
from brainy.legacy.survey import survey
from brainy.store.base import ObjectStore

I = TypeVar("I", Noun, Verb)  # noqa: E741 - an item


@dataclass(slots=True)
class Overlay:
    """The last word of a log on each id it names: the item, or None where it was deleted."""

    nouns: dict[str, Noun | None] = field(default_factory=dict)
    verbs: dict[str, Verb | None] = field(default_factory=dict)
    #: Shard -> last position applied.
    positions: dict[int, int] = field(default_factory=dict)

    def apply(self, record: log_pb2.LogRecord) -> None:
        """Take in one record; records of one shard come in order."""
        match record.WhichOneof("operation"):
            case "upsert_noun":
                self.nouns[record.upsert_noun.id] = noun_from_proto(record.upsert_noun)
            case "delete_noun":
                self.nouns[record.delete_noun] = None
            case "upsert_verb":
                self.verbs[record.upsert_verb.id] = verb_from_proto(record.upsert_verb)
            case "delete_verb":
                self.verbs[record.delete_verb] = None
            case _:
                pass  # fences and advances change no item

    def covers(self, batch: ItemBatch) -> ItemBatch:
        """Return a base's batch without what the log has replaced or deleted."""
        return ItemBatch(
            nouns=[noun for noun in batch.nouns if noun.id not in self.nouns],
            verbs=[verb for verb in batch.verbs if verb.id not in self.verbs],
            quarantined=batch.quarantined,
            objects_read=batch.objects_read,
        )

    def items(self) -> Iterator[ItemBatch]:
        """Yield what the log holds alive, in bounded batches."""
        for nouns in _chunks([noun for noun in self.nouns.values() if noun is not None]):
            yield ItemBatch(nouns=nouns)
        for verbs in _chunks([verb for verb in self.verbs.values() if verb is not None]):
            yield ItemBatch(verbs=verbs)


async def stream_current(store: ObjectStore) -> AsyncGenerator[ItemBatch]:
    """Yield every item of the namespace as it is now, in bounded batches.

    Raises:
        CorruptDataError: something stored does not hash or add up; what was yielded before stands.
        PreconditionError: a tree or a format this version cannot read (UNSUPPORTED_FORMAT), or objects of which
            none is Brainy's (NOT_A_BRAINY_BUCKET).
        UnavailableError: the store cannot be read now.
    """
    found = await store.get(layout.ROUTING)
    if found is None:
        base, shard_count, overlay = await _unadopted(store), 1, Overlay()
    else:
        routing = Routing.decode(found.body, key=layout.ROUTING)
        invariants.check_routing(routing)
        spec = await read_spec(store, routing.active)
        base = await open_base(store, spec)
        overlay = await replay(store, spec, base)
        shard_count = spec.shard_count
    if base is not None:
        async for batch in base.stream(shards=range(shard_count), shard_count=shard_count):
            yield overlay.covers(batch)
    for batch in overlay.items():
        yield batch


async def open_base(store: ObjectStore, spec: Spec) -> Source | None:
    """Return what a generation's logs are replayed over; None for a namespace that began empty."""
    if spec.generation > 0 or await is_published(store, spec):
        return await GenerationSource.open(store, spec.generation)
    return BrainyTreeSource(store, spec.source_trees) if spec.source == "brainy" else None


async def replay(store: ObjectStore, spec: Spec, base: Source | None) -> Overlay:
    """Read the logs of a generation from the base's positions to their ends. Errors as ``read_log``."""
    overlay = Overlay()
    cursor = base.cursor if base is not None else {}
    for shard in range(spec.shard_count):
        position = cursor.get(shard, 0)
        async for slot in read_log(store, spec.generation, shard, from_position=position + 1):
            for at, record in enumerate(slot.batch.records, slot.first):
                if at > position:
                    overlay.apply(record)
            position = slot.last
        overlay.positions[shard] = position
    return overlay


async def _unadopted(store: ObjectStore) -> Source | None:
    seen = await survey(store)
    if seen.foreign_keys:
        raise PreconditionError(
            "the namespace holds objects, but none that Brainy or this product wrote",
            reason="NOT_A_BRAINY_BUCKET",
            remedy="check the bucket and the prefix",
        )
    return BrainyTreeSource(store, seen.trees) if seen.trees else None


def _chunks(items: list[I]) -> Iterator[list[I]]:
    step: Final = BATCH_ITEMS
    for start in range(0, len(items), step):
        yield items[start : start + step]
