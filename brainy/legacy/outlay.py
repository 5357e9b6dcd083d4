"""What taking a bucket into a generation of its own will cost: calls, time, storage, money.

Predicted from what was counted. One node reads every object of an item once and writes a few large ones; each
further node lists everything again and looks at the first bytes of the objects that are not its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from brainy.legacy.changes import Changes
from brainy.legacy.inventory import Inventory
from brainy.legacy.keys import ENTITY, TYPED, Kind
from brainy.legacy.tally import Tally

_PAGE = 1000
#: LISTs of the folders of a small typed tree.
_TYPED_LISTS = 27
#: Bytes of one part of a node's copy, and of one row beside its vector (``brainy_node.builder.parts``).
_PART_BYTES = 64 << 20
_ROW_BYTES = 512
#: Calls of the coordinator and of ownership: routing, history, specifications, fences.
_COORDINATION_PUTS = 40
_COORDINATION_GETS = 60
_PUTS_A_SHARD = 6
_GETS_A_SHARD = 7
#: Share that is left of a document and of a float32 vector in a Parquet segment.
_DOCUMENT_SHARE = 0.35
_VECTOR_SHARE = 0.95
#: Bytes a noun takes in the index beside its vector, and a row of an item in a base beside its content.
_GRAPH_BYTES = 170
_BASE_ROW_BYTES = 160
#: A base that holds nothing: its digest.
_BASE_BYTES = 135_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What a prediction rests on. Prices are those of S3 Standard in us-east-1, in US dollars."""

    nodes: int = 1
    shards: int = 4
    #: GETs a second of one node; two cores that also run the object server reach 2,400.
    gets_per_second: float = 2000.0
    #: For 1,000 GETs.
    price_get: float = 0.0004
    #: For 1,000 PUTs or LISTs.
    price_put: float = 0.005
    #: For a GB (10^9 bytes) in a month.
    price_storage: float = 0.023


class MigrationOutlay(BaseModel):
    """The prediction, and what it rests on."""

    model_config = ConfigDict(frozen=True)

    list_calls: int
    get_calls: int
    #: Of these, what each node makes by itself: it asks the change log about zombies.
    get_calls_a_node: int
    #: GETs of the first bytes of an object, by nodes that do not own its item.
    partial_get_calls: int
    put_calls: int
    #: Reading at the rate assumed, all nodes together.
    seconds: float
    #: Of the new generation, in the bucket beside the old objects.
    bucket_bytes: int
    #: Of local disk, all nodes together.
    disk_bytes: int
    #: Once, for the calls.
    request_cost: float
    #: For the new generation, as long as both are kept.
    storage_cost_per_month: float
    currency: str = "USD"
    nodes: int
    shards: int
    gets_per_second: float
    price_get: float
    price_put: float
    price_storage: float


def predict(inventory: Inventory, tally: Tally, changes: Changes | None, given: Assumptions) -> MigrationOutlay:
    """Predict a migration of what was counted."""
    lists, gets, objects = _reading(inventory, tally)
    lists *= given.nodes
    again_lists, again_gets = _asking_the_log(inventory, tally, changes)
    lists += given.nodes * again_lists
    gets += given.nodes * again_gets
    partial = (given.nodes - 1) * objects
    rows = tally.nouns + tally.verbs
    dimensions = max(tally.dimensions, key=lambda d: tally.dimensions[d], default=0)
    rows_a_part = max(_PAGE, _PART_BYTES // (4 * dimensions + _ROW_BYTES))
    # A part has a segment of each of its shards, and for each of them what says so is swapped.
    parts = sum(math.ceil(number / given.nodes / rows_a_part) for number in (tally.nouns, tally.verbs))
    puts = 2 * given.shards * parts + given.shards * _PUTS_A_SHARD + _COORDINATION_PUTS
    gets += given.shards * _GETS_A_SHARD + _COORDINATION_GETS
    noun_vectors = 4 * sum(length * number for length, number in tally.dimensions.items())
    index = noun_vectors + _GRAPH_BYTES * tally.nouns
    bucket = int(_VECTOR_SHARE * tally.vector_bytes + _DOCUMENT_SHARE * tally.document_bytes) + index
    disk = tally.vector_bytes + tally.document_bytes + _BASE_ROW_BYTES * rows + index + _BASE_BYTES * given.shards
    return MigrationOutlay(
        list_calls=lists,
        get_calls=gets,
        get_calls_a_node=again_gets,
        partial_get_calls=partial,
        put_calls=puts,
        seconds=round((gets + partial) / (given.gets_per_second * given.nodes), 1),
        bucket_bytes=bucket,
        disk_bytes=disk,
        request_cost=round(((gets + partial) * given.price_get + (puts + lists) * given.price_put) / 1000, 6),
        storage_cost_per_month=round(bucket / 1e9 * given.price_storage, 6),
        nodes=given.nodes,
        shards=given.shards,
        gets_per_second=given.gets_per_second,
        price_get=given.price_get,
        price_put=given.price_put,
        price_storage=given.price_storage,
    )


def _reading(inventory: Inventory, tally: Tally) -> tuple[int, int, int]:
    """Return the LISTs of a node, the GETs of all of them together, and the vector objects."""
    count = inventory.tree_kinds
    trees = {tree for tree, _ in count}
    several = len(trees) > 1
    lists = gets = objects = 0
    for tree in trees:
        nouns, verbs, relations = (count[tree, k] for k in (Kind.NOUN, Kind.VERB, Kind.VERB_METADATA))
        metadata = count[tree, Kind.NOUN_METADATA]
        objects += nouns + verbs
        if tree == TYPED:
            # Each folder is listed by itself, twice or thrice; metadata lies with the flat tree's.
            lists += _TYPED_LISTS + 3 * (nouns // _PAGE) + 2 * (verbs // _PAGE)
            gets += 2 * nouns + verbs
            continue
        # The items, what lies beside the verbs, and once more the items for the progress shown.
        lists += 2 * (_pages(nouns) + _pages(verbs)) + _pages(relations)
        # Metadata is asked for, unless so many have none that it is listed.
        listed = several or tally.without_metadata > nouns / 4
        lists += _pages(metadata + count[tree, Kind.INDEX_ENTRY]) if listed else 0
        gets += nouns + (min(nouns, metadata) if listed else nouns) + verbs + min(verbs, relations)
    return lists, gets, objects


def _asking_the_log(inventory: Inventory, tally: Tally, changes: Changes | None) -> tuple[int, int]:
    """Return the LISTs and GETs with which a node asks the change log about zombies."""
    entries = inventory.kinds[Kind.CHANGE]
    suspects = inventory.tree_kinds[ENTITY, Kind.VERB] + inventory.tree_kinds[ENTITY, Kind.NOUN]
    if not suspects or not entries:
        return 0, 0
    # Deletes are small entries; where one names what is stored, the others are read as well.
    if tally.zombies.total():
        again = entries if changes is None else changes.since_delete
        return _pages(entries) + _pages(again), inventory.small_changes + again
    return _pages(entries), inventory.small_changes


def _pages(objects: int) -> int:
    return max(1, math.ceil(objects / _PAGE))
