"""Every invariant: stated in docs/format.md, kept by good values, broken by an example of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import invariants
from brainy.bucket.origin import Moving, Origin
from brainy.bucket.quarantine import ReplayedList, ReplayedObject
from brainy.bucket.records import (
    Collected,
    GenerationPlacement,
    Manifest,
    NodeAddress,
    Routing,
    ShardPlacement,
    StoredFile,
)
from brainy.bucket.trial import ReadTrial
from brainy.errors import CorruptDataError

SHA = "a" * 64
FORMAT = Path(__file__).resolve().parents[2] / "docs" / "format.md"


def file(key: str, rows: int = 0, sha256: str = SHA) -> StoredFile:
    return StoredFile(key=key, size=1, sha256=sha256, rows=rows)


NOUNS = file("cluster/generations/2/nouns/1/a.parquet", 3)
VERBS = file("cluster/generations/2/verbs/1/a.parquet", 2)
INDEX = file("cluster/generations/2/index/1/c/index.usearch")


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "generation": 2,
        "shard": 1,
        "epoch": 5,
        "nonce": "x",
        "position": 10,
        "source_cursor": {0: 7, 1: 3},
        "nouns": (NOUNS,),
        "verbs": (VERBS,),
        "index": INDEX,
        "noun_count": 3,
        "verb_count": 2,
        "indexed_count": 2,
        "digest": SHA,
    }
    return Manifest(**(values | changes))


def placement(owner: str = "a", epoch: int = 1, **changes: Any) -> GenerationPlacement:
    shard = ShardPlacement(owner=owner, epoch=epoch, replicas=("b", "c"))
    values: dict[str, Any] = {"state": "serving", "shard_count": 1, "shards": {0: shard}}
    return GenerationPlacement(**(values | changes))


def routing(**changes: Any) -> Routing:
    values: dict[str, Any] = {
        "namespace": "s3://b",
        "epoch": 4,
        "nonce": "x",
        "leader_epoch": 2,
        "active": 1,
        "write": 1,
        "migration": "m",
        "nodes": {name: NodeAddress(address=f"{name}:1", incarnation="1") for name in ("a", "b", "c", "z")},
        "generations": {1: placement(), 2: placement(state="building", follows=1)},
    }
    return Routing(**(values | changes))


def shards(owner: str, replicas: tuple[str, ...]) -> dict[int, ShardPlacement]:
    return {0: ShardPlacement(owner=owner, epoch=1, replicas=replicas)}


def two() -> dict[int, ShardPlacement]:
    return {number: ShardPlacement(owner="a", epoch=1, replicas=("b", "c")) for number in range(2)}


MOVING = Moving(to="s3://other", migration="m", epoch=7)
MANIFESTS: Mapping[str, Manifest] = {
    "noun count": manifest(noun_count=4),
    "verb count": manifest(verb_count=1),
    "indexes no more": manifest(indexed_count=4),
    "names an index": manifest(index=None),
    "own generation and shard": manifest(index=file("cluster/generations/2/index/3/c/index.usearch")),
    "no file twice": manifest(nouns=(NOUNS, NOUNS), noun_count=6),
    "SHA-256": manifest(index=file(INDEX.key, sha256="A" * 64)),
    "digest of a manifest": manifest(digest="0"),
    "not negative": manifest(position=-1),
}
MANIFEST_SWAPS: Mapping[str, Manifest] = {
    "its generation or its shard": manifest(
        nonce="y", generation=3, nouns=(), verbs=(), index=None, noun_count=0, verb_count=0, indexed_count=0
    ),
    "epoch of a manifest": manifest(nonce="y", epoch=4),
    "position of a manifest never": manifest(nonce="y", position=9),
    "source cursor": manifest(nonce="y", source_cursor={0: 6, 1: 3}),
    "of a manifest has a fresh nonce": manifest(position=11),
    "same bytes": manifest(nonce="y", index=file(INDEX.key, sha256="b" * 64)),
}
ROUTINGS: Mapping[str, Routing] = {
    "active generation is placed and serving": routing(active=2, write=2),
    "that answers reads": routing(write=2),
    "adopted generation": routing(adopted={"a": 9}),
    "and no other": routing(generations={1: placement(shard_count=2)}),
    "not among its replicas": routing(generations={1: placement(shards=shards("a", ("a",)))}),
    "has an address": routing(nodes={}),
    "follows none": routing(generations={1: placement(), 2: placement(state="building", follows=2)}),
    "position of every shard": routing(
        generations={1: placement(), 2: placement(state="following", follows=1, follow_from={1: 3})}
    ),
    "only while a migration is in charge": routing(phase="draining", migration=None, generations={1: placement()}),
    "tried only on a placed generation": routing(reads=ReadTrial(generation=1, weight=0.5)),
    "moves away drains": routing(moving=MOVING),
    "from elsewhere any more": routing(generations={1: placement(origin=Origin(backup="/b"))}),
}
ROUTING_SWAPS: Mapping[str, tuple[Routing, Routing]] = {
    "exactly one": (routing(), routing(nonce="y", epoch=6)),
    "its namespace": (routing(), routing(nonce="y", epoch=5, namespace="s3://other")),
    "leader epoch": (routing(), routing(nonce="y", epoch=5, leader_epoch=1)),
    "of routing has a fresh nonce": (routing(), routing(epoch=5)),
    "out of the draining phase": (
        routing(),
        routing(nonce="y", epoch=5, active=2, write=2, generations={1: placement(), 2: placement()}),
    ),
    "shard count of a generation": (
        routing(),
        routing(nonce="y", epoch=5, generations={1: placement(shard_count=2, shards=two())}),
    ),
    "pool of a generation": (routing(), routing(nonce="y", epoch=5, generations={1: placement(pool="green")})),
    "keeps its epoch": (routing(), routing(nonce="y", epoch=5, generations={1: placement(owner="z")})),
    "no placement changes": (
        routing(phase="draining"),
        routing(phase="draining", nonce="y", epoch=5, generations={1: placement(owner="z", epoch=2)}),
    ),
    "moved stays so": (
        routing(phase="draining", moving=MOVING.model_copy(update={"done": True})),
        routing(nonce="y", epoch=5),
    ),
}


def batch(**changes: Any) -> log_pb2.LogBatch:
    message = log_pb2.LogBatch(
        generation=1,
        shard=2,
        epoch=3,
        first_position=4,
        writer=log_pb2.Writer(nonce=b"0" * 16),
        records=[log_pb2.LogRecord(delete_noun="a"), log_pb2.LogRecord(delete_noun="b")],
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def without_records() -> log_pb2.LogBatch:
    message = batch()
    del message.records[:]
    return message


def without_nonce() -> log_pb2.LogBatch:
    message = batch()
    message.writer.nonce = b""
    return message


def without_operation() -> log_pb2.LogBatch:
    message = batch()
    message.records.add()
    return message


BATCHES: Mapping[str, log_pb2.LogBatch] = {
    "at least one record": without_records(),
    "start at one": batch(first_position=0),
    "nonce of 16 bytes": without_nonce(),
    "exactly one operation": without_operation(),
}
FOLLOWING: Mapping[str, log_pb2.LogBatch] = {
    "one generation and one shard": batch(first_position=6, shard=1),
    "right after": batch(first_position=7),
    "epoch of a log": batch(first_position=6, epoch=2),
}


def collected(position: int, nonce: str) -> Collected:
    return Collected(generation=1, shard=0, epoch=1, position=position, nonce=nonce)


COLLECTED_SWAPS: Mapping[str, Collected] = {
    "collected position of a log never": collected(4, "y"),
    "of a collected position has a fresh nonce": collected(6, "x"),
}


def replayed(nonce: str, *keys: str) -> ReplayedList:
    one = {"reason": "empty", "size": 0, "kind": "noun", "id": "a", "sha256": SHA, "generation": 1, "at": "now"}
    return ReplayedList(nonce=nonce, objects={key: ReplayedObject.model_validate({"key": key, **one}) for key in keys})


REPLAYED_SWAPS: Mapping[str, ReplayedList] = {
    "stays listed": replayed("y", "b"),
    "of the replayed list has a fresh nonce": replayed("x", "a", "b"),
}


def expect_broken(fragment: str, check: Callable[[], None]) -> None:
    with pytest.raises(CorruptDataError) as caught:
        check()
    assert fragment in caught.value.message


def test_good_values_pass() -> None:
    invariants.check_manifest_swap(None, manifest())
    invariants.check_manifest_swap(manifest(), manifest(nonce="y", position=11, source_cursor={0: 8}))
    invariants.check_routing_swap(None, routing(epoch=1))
    draining = routing(nonce="y", epoch=5, phase="draining", migration="m")
    invariants.check_routing_swap(routing(), draining)
    switched = routing(epoch=6, migration="m", active=2, write=2, generations={1: placement(), 2: placement()})
    invariants.check_routing_swap(draining, switched)
    moved = routing(nonce="y", epoch=5, generations={1: placement(owner="z", epoch=2)})
    invariants.check_routing_swap(routing(), moved)
    invariants.check_batch(batch(), key="k")
    invariants.check_batch_follows(batch(), batch(first_position=6, epoch=9), key="k")


@pytest.mark.parametrize("fragment", MANIFESTS)
def test_manifests(fragment: str) -> None:
    expect_broken(fragment, lambda: invariants.check_manifest(MANIFESTS[fragment]))


@pytest.mark.parametrize("fragment", MANIFEST_SWAPS)
def test_manifest_swaps(fragment: str) -> None:
    invariants.check_manifest(MANIFEST_SWAPS[fragment])
    expect_broken(fragment, lambda: invariants.check_manifest_swap(manifest(), MANIFEST_SWAPS[fragment]))


@pytest.mark.parametrize("fragment", ROUTINGS)
def test_routings(fragment: str) -> None:
    expect_broken(fragment, lambda: invariants.check_routing(ROUTINGS[fragment]))


@pytest.mark.parametrize("fragment", ROUTING_SWAPS)
def test_routing_swaps(fragment: str) -> None:
    old, new = ROUTING_SWAPS[fragment]
    invariants.check_routing(new)
    expect_broken(fragment, lambda: invariants.check_routing_swap(old, new))


def test_a_shard_that_keeps_its_owner_keeps_its_epoch() -> None:
    risen = routing(nonce="y", epoch=5, generations={1: placement(epoch=2)})
    expect_broken("keeps its epoch", lambda: invariants.check_routing_swap(routing(), risen))


def test_the_first_routing_record() -> None:
    expect_broken("has epoch one", lambda: invariants.check_routing_swap(None, routing()))


@pytest.mark.parametrize("fragment", BATCHES)
def test_batches(fragment: str) -> None:
    expect_broken(fragment, lambda: invariants.check_batch(BATCHES[fragment], key="k"))


@pytest.mark.parametrize("fragment", FOLLOWING)
def test_following_batches(fragment: str) -> None:
    expect_broken(fragment, lambda: invariants.check_batch_follows(batch(), FOLLOWING[fragment], key="k"))


@pytest.mark.parametrize("fragment", COLLECTED_SWAPS)
def test_collected_swaps(fragment: str) -> None:
    invariants.check_collected_swap(None, COLLECTED_SWAPS[fragment])
    invariants.check_collected_swap(collected(5, "x"), collected(5, "z"))
    expect_broken(fragment, lambda: invariants.check_collected_swap(collected(5, "x"), COLLECTED_SWAPS[fragment]))


@pytest.mark.parametrize("fragment", REPLAYED_SWAPS)
def test_replayed_swaps(fragment: str) -> None:
    invariants.check_replayed_swap(None, REPLAYED_SWAPS[fragment])
    invariants.check_replayed_swap(replayed("x", "a"), replayed("y", "a", "b"))
    expect_broken(fragment, lambda: invariants.check_replayed_swap(replayed("x", "a"), REPLAYED_SWAPS[fragment]))


def test_every_invariant_is_documented_and_has_an_example() -> None:
    documented = {
        line.removeprefix("- ") for line in FORMAT.read_text(encoding="utf-8").splitlines() if line[:2] == "- "
    }
    single = [*invariants.MANIFEST, *invariants.ROUTING, *invariants.BATCH, invariants.FIRST_ROUTING]
    swaps = [
        *invariants.MANIFEST_SWAP,
        *invariants.ROUTING_SWAP,
        *invariants.BATCH_FOLLOWS,
        *invariants.COLLECTED_SWAP,
        *invariants.REPLAYED_SWAP,
    ]
    sentences = [item.sentence for item in single] + [item.sentence for item in swaps]
    assert [sentence for sentence in sentences if sentence not in documented] == []
    examples = [
        *MANIFESTS,
        *MANIFEST_SWAPS,
        *ROUTINGS,
        *ROUTING_SWAPS,
        *BATCHES,
        *FOLLOWING,
        *COLLECTED_SWAPS,
        *REPLAYED_SWAPS,
        "has epoch one",
    ]
    assert len(examples) == len(sentences) == len(set(sentences))
    # The other way round: what format.md lists as an invariant is checked.
    blocks = FORMAT.read_text(encoding="utf-8").split("Invariants:\n")[1:]
    listed = [
        line.removeprefix("- ") for block in blocks for line in block.split("\n## ")[0].splitlines() if line[:2] == "- "
    ]
    assert sorted(listed) == sorted(sentences)
