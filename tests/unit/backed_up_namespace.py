"""A namespace that is written, dropped from and backed up, with what it holds kept beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from brainy.api.storage.v1 import log_pb2
from brainy.backup.native_reading import CheckedNative
from brainy.backup.opening import check_backup
from brainy.backup.values import BackupFormat, BackupSummary
from brainy.backup.writing import BackupOptions, write_backup
from brainy.bucket import layout
from brainy.bucket.digest import digest_of
from brainy.bucket.items import Noun, Verb, noun_to_proto, verb_to_proto
from brainy.bucket.partition import shard_of
from brainy.bucket.records import (
    GenerationPlacement,
    NodeAddress,
    Routing,
    ShardPlacement,
    Spec,
)
from brainy.changelog.writing import LogWriter
from brainy.clock import SystemClock
from brainy.ids import Ids
from brainy.store.memory import MemoryStore

SHARDS = 3
NAMESPACE = "memory://test"


def noun(name: str, value: float = 1.0, metadata: bytes | None = b'{"x":1}') -> Noun:
    return Noun(id=name, vector=np.array([value, 2.0], dtype="<f4").tobytes(), metadata=metadata)


def verb(name: str, weight: float | None = 0.5) -> Verb:
    return Verb(id=name, source_id="n0", target_id="n1", type="relatedTo", weight=weight)


class Namespace:
    """A served namespace, without the cluster: a routing record, a spec and logs."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.writers: dict[int, LogWriter] = {}
        self.nouns: dict[str, Noun] = {}
        self.verbs: dict[str, Verb] = {}

    async def adopt(self, *, source: str = "empty", trees: tuple[str, ...] = ()) -> None:
        spec = Spec(generation=0, dimensions=2, shard_count=SHARDS, source=source, source_trees=trees)
        await self.store.put(layout.spec(0), spec.encode())
        shards = {number: ShardPlacement(owner="n", epoch=1) for number in range(SHARDS)}
        routing = Routing(
            namespace=NAMESPACE,
            epoch=1,
            nonce="n",
            leader_epoch=1,
            active=0,
            write=0,
            nodes={"n": NodeAddress(address="n:1", incarnation="1")},
            generations={0: GenerationPlacement(state="serving", shard_count=SHARDS, shards=shards)},
        )
        await self.store.put(layout.ROUTING, routing.encode())
        for shard in range(SHARDS):
            self.writers[shard] = LogWriter(
                self.store,
                generation=0,
                shard=shard,
                epoch=1,
                writer_node="n",
                incarnation="1",
                ids=Ids(),
                clock=SystemClock(),
                next_position=1,
            )
            await self.writers[shard].fence()

    async def commit(self, *records: log_pb2.LogRecord) -> None:
        groups: dict[int, list[log_pb2.LogRecord]] = {}
        for record in records:
            kind = record.WhichOneof("operation")
            found = getattr(record, str(kind))
            item_id = found if isinstance(found, str) else found.id
            groups.setdefault(shard_of(item_id, SHARDS), []).append(record)
        for shard, group in groups.items():
            await self.writers[shard].commit(group)

    async def put(self, *items: Noun | Verb) -> None:
        records = []
        for item in items:
            if isinstance(item, Noun):
                self.nouns[item.id] = item
                records.append(log_pb2.LogRecord(upsert_noun=noun_to_proto(item)))
            else:
                self.verbs[item.id] = item
                records.append(log_pb2.LogRecord(upsert_verb=verb_to_proto(item)))
        await self.commit(*records)

    async def drop(self, *, nouns: Sequence[str] = (), verbs: Sequence[str] = ()) -> None:
        for name in nouns:
            self.nouns.pop(name, None)
        for name in verbs:
            self.verbs.pop(name, None)
        await self.commit(
            *(log_pb2.LogRecord(delete_noun=name) for name in nouns),
            *(log_pb2.LogRecord(delete_verb=name) for name in verbs),
        )

    @property
    def digest(self) -> str:
        pairs = [(one.id, one.digest()) for one in self.nouns.values()]
        return digest_of(pairs + [(one.id, one.digest()) for one in self.verbs.values()]).fold()

    async def backup(self, path: Path, **options: object) -> BackupSummary:
        given = BackupOptions(format=BackupFormat.NATIVE, **options)  # type: ignore[arg-type]
        return await write_backup(self.store, NAMESPACE, path, given, clock=SystemClock(), ids=Ids())


async def filled(nouns: int = 250) -> Namespace:
    space = Namespace()
    await space.adopt()
    for start in range(0, nouns, 50):
        await space.put(*(noun(f"n{number}", number + 1) for number in range(start, min(start + 50, nouns))))
    await space.put(*(verb(f"v{number}") for number in range(20)))
    return space


def assert_holds(path: Path, space: Namespace) -> CheckedNative:
    backup = check_backup(path)
    assert isinstance(backup, CheckedNative)
    nouns = {one.id: one for batch in backup.items() for one in batch.nouns}
    verbs = {one.id: one for batch in backup.items() for one in batch.verbs}
    assert (nouns, verbs) == (space.nouns, space.verbs)
    assert backup.verification.digest == space.digest
    assert (backup.verification.nouns, backup.verification.verbs) == (len(nouns), len(verbs))
    return backup


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
