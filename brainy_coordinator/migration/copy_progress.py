"""How far a copy is, how fast and until when, by the counts nodes report. For people, never for decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from brainy.api.node.v1 import copy_pb2
from brainy_coordinator.migration.observation import Observation, ReplicaSeen, ReplicaState, followed_shards
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.state import State

#: A speed is that of the last so many seconds, and is said once there are some.
_WINDOW_SECONDS: Final = 15.0
_SHORTEST_SECONDS: Final = 2.0
_STAGES: Final = ("reading", "publishing", "indexing")
_COPIED: Final = (ReplicaState.REPLAYING, ReplicaState.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """One stage over all shards."""

    #: reading, publishing or indexing: items. following: records.
    stage: str
    done: int
    #: 0: not known yet.
    total: int
    #: Over the last seconds; 0 while nothing moves.
    per_second: float = 0.0
    #: None while nothing moves, or the total is not known.
    remaining_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimit:
    """How fast a node's copy may be."""

    node_id: str
    #: Items a second and stage; None for as many as it can.
    items_per_second: float | None
    #: paused, set, latency, store or starting; "" where nothing holds it back.
    reason: str
    store_repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProgress:
    """A copy at one moment."""

    stages: tuple[StageProgress, ...]
    limits: tuple[CopyLimit, ...] = ()
    #: Items that were not read again after a node had died.
    resumed: int = 0


class Speeds:
    """What was counted in the last seconds, by stage."""

    def __init__(self) -> None:
        self._counts: dict[str, deque[tuple[float, int, int]]] = {}

    def stage(self, stage: str, done: int, total: int, now: float) -> StageProgress:
        """Return a stage with its speed; ``now`` in monotonic seconds."""
        counts = self._counts.setdefault(stage, deque())
        if counts and done < counts[-1][1]:
            counts.clear()  # another owner begins with fewer
        counts.append((now, done, total))
        while len(counts) > 2 and now - counts[1][0] >= _WINDOW_SECONDS:
            counts.popleft()
        since, was_done, was_total = counts[0]
        elapsed = now - since
        speed = (done - was_done) / elapsed if elapsed >= _SHORTEST_SECONDS else 0.0
        # What is followed grows meanwhile.
        gain = speed - ((total - was_total) / elapsed if stage == "following" and speed else 0.0)
        left = max(0, total - done)
        remaining = None if not total or (left and gain <= 0.0) else float(round(left / gain)) if left else 0.0
        return StageProgress(
            stage=stage, done=done, total=total, per_second=float(f"{speed:.3g}"), remaining_seconds=remaining
        )


def copy_progress(record: MigrationRecord, seen: Observation, speeds: Speeds, now: float) -> CopyProgress | None:
    """Return how far the copy is, or the catching up after it; None where neither is under way."""
    if record.state is State.CATCHING_UP or (record.state is State.OBSERVING and record.wants_rollback):
        reached, end = _following(seen, record.leading, record.following)
        return CopyProgress(stages=(speeds.stage("following", reached, end, now),)) if end else None
    if record.state is not State.COPYING:
        return None
    owners = [owner for owner in seen.owners(record.target).values() if owner is not None]
    whole = len(owners) == len(seen.owners(record.target)) > 0
    stages = [
        speeds.stage(stage, done, total if whole else 0, now)
        for stage in _STAGES
        if (found := _stage(stage, owners)) is not None
        for done, total in (found,)
    ]
    copying = [(owner.node_id, owner.copying) for owner in owners if owner.copying is not None]
    limits = {
        node: CopyLimit(
            node_id=node,
            items_per_second=float(f"{said.limit:.3g}") if said.HasField("limit") else None,
            reason=said.reason,
            store_repeats=said.store_repeats,
        )
        for node, said in sorted(copying, key=lambda pair: pair[0])
    }
    return CopyProgress(
        stages=tuple(stages),
        limits=tuple(limits.values()),
        resumed=sum(said.resumed for _, said in copying),
    )


def _stage(stage: str, owners: Iterable[ReplicaSeen]) -> tuple[int, int] | None:
    """Add up a stage; None while no shard has come to it, total 0 while one does not know its own."""
    done = total = 0
    known, begun = True, False
    for owner in owners:
        counts = _counts(stage, owner)
        begun = begun or counts is not None
        nothing = counts == (0, 0) and (owner.state in _COPIED or stage == "indexing")
        known = known and counts is not None and (counts[1] > 0 or nothing)
        done += counts[0] if counts else 0
        total += counts[1] if counts else 0
    return (done, total if known else 0) if begun else None


def _counts(stage: str, owner: ReplicaSeen) -> tuple[int, int] | None:
    if owner.state in _COPIED:
        # Through with all stages. A base that was found on local disk was not copied by this process.
        items = owner.nouns if stage == "indexing" else owner.copied or owner.items
        return items, items
    said: Iterable[copy_pb2.StageCount] = owner.copying.stages if owner.copying is not None else ()
    return next(((count.done, count.total) for count in said if count.stage == stage), None)


def _following(seen: Observation, source: int, target: int) -> tuple[int, int]:
    """Positions that the followers have reached and those there are, added up over what each shard follows."""
    placed_source, placed_target = seen.generation(source), seen.generation(target)
    if placed_source is None or placed_target is None:
        return 0, 0
    reached = end = 0
    ends = seen.ends(source)
    for shard, follower in seen.owners(target).items():
        for followed in followed_shards(
            shard, source_count=placed_source.shard_count, target_count=placed_target.shard_count
        ):
            if follower is not None and followed in ends:
                reached += min(follower.reached(source, followed), ends[followed])
                end += ends[followed]
    return reached, end
