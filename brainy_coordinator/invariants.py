"""What must hold of every routing record that is written, one predicate a sentence.

``check`` runs before every compare-and-swap; a violation is a bug of ours and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from brainy.bucket.records import GenerationPlacement, Routing
from brainy.errors import CorruptDataError

Invariant = Callable[[Routing | None, Routing], bool]


def _placements(routing: Routing) -> Iterator[tuple[int, GenerationPlacement]]:
    yield from routing.generations.items()


def epoch_rises_by_one(before: Routing | None, after: Routing) -> bool:
    """The epoch is one more than before; the first is 1."""
    return after.epoch == (1 if before is None else before.epoch + 1)


def leader_epoch_never_falls(before: Routing | None, after: Routing) -> bool:
    """A leader never writes over a later leader's record."""
    return before is None or after.leader_epoch >= before.leader_epoch


def namespace_stays(before: Routing | None, after: Routing) -> bool:
    """A record never changes hands between namespaces."""
    return before is None or after.namespace == before.namespace


def active_generation_serves(_: Routing | None, after: Routing) -> bool:
    """The generation that is read exists and is not under construction."""
    placed = after.generations.get(after.active)
    return placed is not None and placed.state == "serving"


def writes_go_where_reads_do(_: Routing | None, after: Routing) -> bool:
    """One generation is the truth: it takes the writes and answers the reads."""
    return after.write == after.active


def every_shard_is_placed(_: Routing | None, after: Routing) -> bool:
    """Shards 0 to shard_count - 1, no other."""
    return all(set(g.shards) == set(range(g.shard_count)) and g.shard_count > 0 for _, g in _placements(after))


def owner_is_no_replica(_: Routing | None, after: Routing) -> bool:
    """A node holds one copy of a shard, not two."""
    return all(
        s.owner not in s.replicas and len(set(s.replicas)) == len(s.replicas)
        for _, g in _placements(after)
        for s in g.shards.values()
    )


def holders_have_addresses(_: Routing | None, after: Routing) -> bool:
    """Every node named in a placement can be called."""
    return all({s.owner, *s.replicas} <= after.nodes.keys() for _, g in _placements(after) for s in g.shards.values())


def shard_epochs_rise_with_owners(before: Routing | None, after: Routing) -> bool:
    """Same owner, same epoch; another owner, a higher one."""
    if before is None:
        return True
    for number, placed in _placements(after):
        old = before.generations.get(number)
        for shard, now in placed.shards.items():
            was = old.shards.get(shard) if old is not None else None
            if was is None:
                continue
            if now.owner == was.owner and now.epoch != was.epoch:
                return False
            if now.owner != was.owner and now.epoch <= was.epoch:
                return False
    return True


def building_follows_active(_: Routing | None, after: Routing) -> bool:
    """A generation under construction follows the one in service; a serving one follows nobody."""
    return all(
        (g.follows == after.active and number != after.active) if g.state == "building" else g.follows is None
        for number, g in _placements(after)
    )


def change_belongs_to_a_migration(_: Routing | None, after: Routing) -> bool:
    """Draining, adopted nodes and a second generation exist only while a migration is in charge."""
    unusual = after.phase == "draining" or bool(after.adopted) or len(after.generations) > 1
    return after.migration is not None or not unusual


def adopted_generations_exist(_: Routing | None, after: Routing) -> bool:
    """A node reads only from a generation that is placed."""
    return set(after.adopted.values()) <= after.generations.keys()


def active_moves_only_from_draining(before: Routing | None, after: Routing) -> bool:
    """The commit starts from a drained namespace, and ends the draining."""
    if before is None or before.active == after.active:
        return True
    return before.phase == "draining" and after.phase == "serving" and before.migration == after.migration


def draining_changes_nothing_else(before: Routing | None, after: Routing) -> bool:
    """While writes are stopped, and still after this swap, no shard changes its owner."""
    if before is None or before.phase != "draining" or after.phase != "draining":
        return True
    return before.generations == after.generations


INVARIANTS: tuple[Invariant, ...] = (
    epoch_rises_by_one,
    leader_epoch_never_falls,
    namespace_stays,
    active_generation_serves,
    writes_go_where_reads_do,
    every_shard_is_placed,
    owner_is_no_replica,
    holders_have_addresses,
    shard_epochs_rise_with_owners,
    building_follows_active,
    change_belongs_to_a_migration,
    adopted_generations_exist,
    active_moves_only_from_draining,
    draining_changes_nothing_else,
)


def check(before: Routing | None, after: Routing) -> None:
    """Refuse a record that breaks an invariant.

    Raises:
        CorruptDataError: names the sentence that does not hold; nothing was written.
    """
    for invariant in INVARIANTS:
        if not invariant(before, after):
            raise CorruptDataError(
                f"a routing record would break an invariant: {(invariant.__doc__ or '').strip().lower()}",
                remedy="nothing was written; report this as a bug",
                invariant=invariant.__name__,
                namespace=after.namespace,
                epoch=after.epoch,
            )
