"""The invariants of docs/format.md, one predicate a sentence.

Every sentence here stands word for word in docs/format.md (a test holds that). They are checked whenever one of
these objects is written or read: by the change log on every batch, by the coordinator before it swaps routing,
by an owner before it publishes a manifest, by tests and by a scrub.

A predicate of a swap gets the old value too; the first version of an object has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from brainy.api.storage.v1 import log_pb2
from brainy.bucket import layout
from brainy.bucket.quarantine import ReplayedList
from brainy.bucket.records import Collected, GenerationPlacement, Manifest, Routing, StoredFile
from brainy.errors import CorruptDataError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Invariant(Generic[T]):
    """A sentence about one value, and whether it holds."""

    sentence: str
    holds: Callable[[T], bool]


@dataclass(frozen=True, slots=True)
class SwapInvariant(Generic[T]):
    """A sentence about a value and the one that replaces it, and whether it holds."""

    sentence: str
    holds: Callable[[T, T], bool]


# --- manifests -----------------------------------------------------------------------------------------------


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _files(manifest: Manifest) -> list[StoredFile]:
    single = [file for file in (manifest.index, manifest.quarantine) if file is not None]
    return [*manifest.nouns, *manifest.verbs, *single]


def _files_belong(manifest: Manifest) -> bool:
    home = layout.generation(manifest.generation)
    return all(file.key.startswith(home) and f"/{manifest.shard}/" in file.key for file in _files(manifest))


def _cursor_never_falls(old: Manifest, new: Manifest) -> bool:
    return old.source_generation != new.source_generation or all(
        new.source_cursor[shard] >= position
        for shard, position in old.source_cursor.items()
        if shard in new.source_cursor
    )


def _keys_name_the_same_bytes(old: Manifest, new: Manifest) -> bool:
    before = {file.key: file.sha256 for file in _files(old)}
    return all(before.get(file.key, file.sha256) == file.sha256 for file in _files(new))


MANIFEST: Final[Sequence[Invariant[Manifest]]] = (
    Invariant(
        "The noun count of a manifest is the sum of the rows of its noun segments.",
        lambda m: m.noun_count == sum(file.rows for file in m.nouns),
    ),
    Invariant(
        "The verb count of a manifest is the sum of the rows of its verb segments.",
        lambda m: m.verb_count == sum(file.rows for file in m.verbs),
    ),
    Invariant(
        "A manifest indexes no more nouns than it counts.",
        lambda m: 0 <= m.indexed_count <= m.noun_count,
    ),
    Invariant(
        "A manifest that indexes nouns names an index.",
        lambda m: m.index is not None or m.indexed_count == 0,
    ),
    Invariant(
        "Every file of a manifest lies in its own generation and shard.",
        _files_belong,
    ),
    Invariant(
        "A manifest names no file twice.",
        lambda m: len({file.key for file in _files(m)}) == len(_files(m)),
    ),
    Invariant(
        "Every file of a manifest carries a SHA-256 of 64 hex digits.",
        lambda m: all(_is_sha256(file.sha256) for file in _files(m)),
    ),
    Invariant("The digest of a manifest has 64 hex digits.", lambda m: _is_sha256(m.digest)),
    Invariant("The position of a manifest is not negative.", lambda m: m.position >= 0),
)

MANIFEST_SWAP: Final[Sequence[SwapInvariant[Manifest]]] = (
    SwapInvariant(
        "A manifest never changes its generation or its shard.",
        lambda old, new: (old.generation, old.shard) == (new.generation, new.shard),
    ),
    SwapInvariant("The epoch of a manifest never falls.", lambda old, new: new.epoch >= old.epoch),
    SwapInvariant("The position of a manifest never falls.", lambda old, new: new.position >= old.position),
    SwapInvariant("The source cursor of a manifest never falls while it is of one generation.", _cursor_never_falls),
    SwapInvariant("Every write of a manifest has a fresh nonce.", lambda old, new: new.nonce != old.nonce),
    SwapInvariant("A key names the same bytes for ever.", _keys_name_the_same_bytes),
)


# --- routing -------------------------------------------------------------------------------------------------


def _active_serves(routing: Routing) -> bool:
    placement = routing.generations.get(routing.active)
    return placement is not None and placement.state == "serving"


def _owners_apart(routing: Routing) -> bool:
    return all(
        shard.owner not in shard.replicas and len(set(shard.replicas)) == len(shard.replicas)
        for placement in routing.generations.values()
        for shard in placement.shards.values()
    )


def _shards_all_placed(routing: Routing) -> bool:
    return all(
        placement.shard_count > 0 and set(placement.shards) == set(range(placement.shard_count))
        for placement in routing.generations.values()
    )


def _holders_have_addresses(routing: Routing) -> bool:
    return all(
        {shard.owner, *shard.replicas} <= routing.nodes.keys()
        for placement in routing.generations.values()
        for shard in placement.shards.values()
    )


def _others_follow_active(routing: Routing) -> bool:
    return all(
        (placement.follows is None and not placement.follow_from)
        if placement.state == "serving"
        else (placement.follows == routing.active and number != routing.active)
        for number, placement in routing.generations.items()
    )


def _following_knows_from_where(routing: Routing) -> bool:
    return all(
        placement.follow_from.keys() == routing.generations[placement.follows].shards.keys()
        for placement in routing.generations.values()
        if placement.follows in routing.generations and (placement.state == "following" or placement.follow_from)
    )


def _unusual_has_a_migration(routing: Routing) -> bool:
    unusual = routing.phase == "draining" or bool(routing.adopted) or len(routing.generations) > 1
    return routing.migration is not None or not unusual


def _both(old: Routing, new: Routing) -> list[tuple[GenerationPlacement, GenerationPlacement]]:
    return [(old.generations[g], new.generations[g]) for g in old.generations.keys() & new.generations.keys()]


def _epochs_rise_with_owners(old: Routing, new: Routing) -> bool:
    return all(
        now.epoch == was.epoch if now.owner == was.owner else now.epoch > was.epoch
        for before, after in _both(old, new)
        for shard, was in before.shards.items()
        if (now := after.shards.get(shard)) is not None
    )


def _active_moves_by_commit(old: Routing, new: Routing) -> bool:
    if old.active == new.active:
        return True
    return old.phase == "draining" and new.phase == "serving" and old.migration == new.migration


def _drains_in_peace(old: Routing, new: Routing) -> bool:
    return old.phase != "draining" or new.phase != "draining" or old.generations == new.generations


def _is_tried_on_another(routing: Routing, generation: int) -> bool:
    return routing.migration is not None and generation in routing.generations and generation != routing.active


def _leaves_drained(routing: Routing) -> bool:
    moving = routing.moving
    return moving is None or (routing.phase == "draining" and routing.migration == moving.migration)


def _gone_for_good(old: Routing, new: Routing) -> bool:
    return old.moving is None or not old.moving.done or old.moving == new.moving


def _arrives_in_peace(routing: Routing) -> bool:
    return all(placed.origin is None for placed in routing.generations.values() if placed.state == "serving")


ROUTING: Final[Sequence[Invariant[Routing]]] = (
    Invariant("The active generation is placed and serving.", _active_serves),
    Invariant("Writes go to the generation that answers reads.", lambda r: r.write == r.active),
    Invariant("Every adopted generation is placed.", lambda r: set(r.adopted.values()) <= r.generations.keys()),
    Invariant("Every shard of a placed generation is placed, and no other.", _shards_all_placed),
    Invariant(
        "A shard's owner is not among its replicas, and no replica is named twice.",
        _owners_apart,
    ),
    Invariant("Every node that holds a shard has an address.", _holders_have_addresses),
    Invariant(
        "One that is being built or kept as a way back follows the active generation, one that serves follows none.",
        _others_follow_active,
    ),
    Invariant(
        "A generation that was active knows a position of every shard it follows.",
        _following_knows_from_where,
    ),
    Invariant(
        "Draining, adopted nodes and a second generation exist only while a migration is in charge.",
        _unusual_has_a_migration,
    ),
    Invariant(
        "Reads are tried only on a placed generation that is not the active one, while a migration is in charge.",
        lambda r: r.reads is None or _is_tried_on_another(r, r.reads.generation),
    ),
    Invariant(
        "A namespace that moves away drains, and the migration in charge is that of the other namespace.",
        _leaves_drained,
    ),
    Invariant("A generation that serves needs nothing from elsewhere any more.", _arrives_in_peace),
)

FIRST_ROUTING: Final[Invariant[Routing]] = Invariant("The first routing record has epoch one.", lambda r: r.epoch == 1)

ROUTING_SWAP: Final[Sequence[SwapInvariant[Routing]]] = (
    SwapInvariant("Each swap of routing raises its epoch by exactly one.", lambda old, new: new.epoch == old.epoch + 1),
    SwapInvariant("Routing never changes its namespace.", lambda old, new: new.namespace == old.namespace),
    SwapInvariant("The leader epoch of routing never falls.", lambda old, new: new.leader_epoch >= old.leader_epoch),
    SwapInvariant("Every write of routing has a fresh nonce.", lambda old, new: new.nonce != old.nonce),
    SwapInvariant(
        "The active generation changes only out of the draining phase, into serving, by one migration.",
        _active_moves_by_commit,
    ),
    SwapInvariant(
        "The shard count of a generation never changes.",
        lambda old, new: all(before.shard_count == after.shard_count for before, after in _both(old, new)),
    ),
    SwapInvariant(
        "The pool of a generation never changes.",
        lambda old, new: all(before.pool == after.pool for before, after in _both(old, new)),
    ),
    SwapInvariant(
        "A shard keeps its epoch while it keeps its owner, and gets a higher one with another.",
        _epochs_rise_with_owners,
    ),
    SwapInvariant("While a namespace drains, no placement changes.", _drains_in_peace),
    SwapInvariant("A namespace that has moved stays so.", _gone_for_good),
)


# --- change log ----------------------------------------------------------------------------------------------

BATCH: Final[Sequence[Invariant[log_pb2.LogBatch]]] = (
    Invariant("A batch holds at least one record.", lambda b: len(b.records) > 0),
    Invariant("Positions start at one.", lambda b: b.first_position >= 1),
    Invariant("Every batch carries a nonce of 16 bytes.", lambda b: len(b.writer.nonce) == 16),
    Invariant(
        "Every record is exactly one operation.",
        lambda b: all(record.WhichOneof("operation") is not None for record in b.records),
    ),
)

LOG_IS_DENSE: Final[SwapInvariant[log_pb2.LogBatch]] = SwapInvariant(
    "Each batch begins right after the one before it.",
    lambda old, new: new.first_position == old.first_position + len(old.records),
)

BATCH_FOLLOWS: Final[Sequence[SwapInvariant[log_pb2.LogBatch]]] = (
    SwapInvariant(
        "All batches of a log are of one generation and one shard.",
        lambda old, new: (old.generation, old.shard) == (new.generation, new.shard),
    ),
    LOG_IS_DENSE,
    SwapInvariant("The epoch of a log never falls.", lambda old, new: new.epoch >= old.epoch),
)


# --- collection ----------------------------------------------------------------------------------------------

COLLECTED_SWAP: Final[Sequence[SwapInvariant[Collected]]] = (
    SwapInvariant("The collected position of a log never falls.", lambda old, new: new.position >= old.position),
    SwapInvariant("Every write of a collected position has a fresh nonce.", lambda old, new: new.nonce != old.nonce),
)


# --- quarantine ----------------------------------------------------------------------------------------------

REPLAYED_SWAP: Final[Sequence[SwapInvariant[ReplayedList]]] = (
    SwapInvariant(
        "An object that was replayed stays listed.", lambda old, new: old.objects.keys() <= new.objects.keys()
    ),
    SwapInvariant("Every write of the replayed list has a fresh nonce.", lambda old, new: new.nonce != old.nonce),
)


# --- checks --------------------------------------------------------------------------------------------------


def check_manifest(manifest: Manifest, *, key: str = "") -> None:
    """Check one manifest by itself.

    Raises:
        CorruptDataError: with the sentence that does not hold.
    """
    _check(MANIFEST, manifest, key or layout.manifest(manifest.generation, manifest.shard))


def check_manifest_swap(old: Manifest | None, new: Manifest) -> None:
    """Check a manifest and, unless it is the first, its step from the one it replaces. Errors as above."""
    key = layout.manifest(new.generation, new.shard)
    _check(MANIFEST, new, key)
    if old is not None:
        _check_swap(MANIFEST_SWAP, old, new, key)


def check_routing(routing: Routing) -> None:
    """Check one routing record by itself. Errors as above."""
    _check(ROUTING, routing, layout.ROUTING)


def check_routing_swap(old: Routing | None, new: Routing) -> None:
    """Check a routing record and, unless it is the first, its step from the old one. Errors as above."""
    _check(ROUTING, new, layout.ROUTING)
    if old is None:
        _check((FIRST_ROUTING,), new, layout.ROUTING)
    else:
        _check_swap(ROUTING_SWAP, old, new, layout.ROUTING)


def check_collected_swap(old: Collected | None, new: Collected) -> None:
    """Check the step of a collected position from the one it replaces. Errors as above."""
    if old is not None:
        _check_swap(COLLECTED_SWAP, old, new, layout.collected(new.generation, new.shard))


def check_replayed_swap(old: ReplayedList | None, new: ReplayedList) -> None:
    """Check the step of the list of replayed objects from the one it replaces. Errors as above."""
    if old is not None:
        _check_swap(REPLAYED_SWAP, old, new, layout.REPLAYED)


def check_batch(batch: log_pb2.LogBatch, *, key: str) -> None:
    """Check one batch of a change log by itself. Errors as above."""
    _check(BATCH, batch, key)


def check_batch_follows(previous: log_pb2.LogBatch, batch: log_pb2.LogBatch, *, key: str) -> None:
    """Check that a batch may stand right after another. Errors as above."""
    _check_swap(BATCH_FOLLOWS, previous, batch, key)


def _check(sentences: Sequence[Invariant[T]], value: T, key: str) -> None:
    for invariant in sentences:
        if not invariant.holds(value):
            raise _broken(invariant.sentence, key)


def _check_swap(sentences: Sequence[SwapInvariant[T]], old: T, new: T, key: str) -> None:
    for invariant in sentences:
        if not invariant.holds(old, new):
            raise _broken(invariant.sentence, key)


def _broken(sentence: str, key: str) -> CorruptDataError:
    return CorruptDataError(
        f"an invariant does not hold: {sentence[0].lower()}{sentence[1:].rstrip('.')}",
        remedy="nothing was written or served; scrub the namespace",
        key=key,
    )
