"""Waves of a rolling migration: which nodes' reads move together, and for how long they are watched. Pure.

A wave is made when it begins, of nodes that are there then. What is on record of it are the routing record's
``adopted``, in one swap for the whole wave, and ``wave_baked`` in the history once it has been watched: everything
adopted and not baked is the wave of now. So a new leader goes on with the wave that it finds; only its time to bake
begins anew.

A wave takes the nodes that own the fewest source shards first, at most ``max_unavailable``, and a further node only if
every shard of either generation that is placed on two nodes or more keeps a ready replica outside of the wave.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from brainy_coordinator.migration.observation import Bake, Observation, ReplicaState
from brainy_coordinator.migration.record import MigrationRecord

#: Longer than this between two looks nobody has watched, and it does not count.
_LONGEST_GAP_SECONDS = 5.0


class WaveState(enum.Enum):
    """Where a wave stands."""

    WAITING = "waiting"
    BAKING = "baking"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Nodes that move together; for people."""

    nodes: tuple[str, ...]
    state: WaveState
    baked_seconds: float = 0.0
    complaint: str = ""


def order(record: MigrationRecord, seen: Observation) -> list[str]:
    """Return the reachable nodes as they move: those that own the fewest source shards first."""
    source = seen.generation(record.source)
    owned = Counter(placed.owner for placed in source.shards.values()) if source else Counter[str]()
    return sorted(seen.reachable, key=lambda node: (owned[node], node))


def moved(record: MigrationRecord, seen: Observation) -> list[str]:
    """Return the reachable nodes whose reads are on the target, in order."""
    return [node for node in order(record, seen) if seen.routing.adopted.get(node) == record.target]


def waiting(record: MigrationRecord, seen: Observation) -> list[str]:
    """Return the reachable nodes whose reads are not, in order."""
    return [node for node in order(record, seen) if seen.routing.adopted.get(node) != record.target]


def next_wave(record: MigrationRecord, seen: Observation, left: Sequence[str]) -> tuple[str, ...]:
    """Return which of the nodes that are left move next, together."""
    wave: list[str] = []
    for node in left:
        if len(wave) >= max(1, record.request.max_unavailable):
            break
        if not wave or _leaves_enough(record, seen, {*wave, node}):
            wave.append(node)
    return tuple(wave)


def _leaves_enough(record: MigrationRecord, seen: Observation, wave: Collection[str]) -> bool:
    for number in (record.source, record.target):
        placed = seen.generation(number)
        for shard, where in placed.shards.items() if placed else ():
            holders = (where.owner, *where.replicas)
            if len(holders) > 1 and not any(
                _is_ready(seen, number, shard, node) for node in holders if node not in wave
            ):
                return False
    return True


def _is_ready(seen: Observation, generation: int, shard: int, node: str) -> bool:
    found = seen.replica(generation, shard, node)
    return node in seen.reachable and found is not None and found.state is ReplicaState.READY


def current_wave(record: MigrationRecord, seen: Observation) -> tuple[str, ...]:
    """Return the nodes that have moved and not baked, where waves are watched."""
    if not record.request.in_waves:
        return ()
    baked = {node for wave in record.waves for node in wave}
    return tuple(node for node in moved(record, seen) if node not in baked)


def finished_wave(record: MigrationRecord, seen: Observation) -> tuple[str, ...]:
    """Return the wave that has moved, confirmed and baked, and is not written down; empty for none."""
    if record.request.strategy != "rolling":
        return ()
    wave = current_wave(record, seen)
    if not wave or not seen.facts.adopted_in_force.issuperset(wave):
        return ()
    bake = seen.facts.bake
    baked = not record.request.bake_seconds or (bake is not None and bake.done and bake.nodes == frozenset(wave))
    return wave if baked else ()


def wave_text(record: MigrationRecord, nodes: Sequence[str]) -> str:
    """Return a wave that is done in words, for the history."""
    return f"wave {len(record.waves) + 1}: {', '.join(nodes)}, baked for {record.request.bake_seconds:g} s"


def complaint(record: MigrationRecord, seen: Observation, nodes: Collection[str]) -> str:
    """Return what is not healthy while a wave bakes; "" for nothing."""
    gone = sorted(set(nodes) - seen.reachable)
    if gone:
        return f"{', '.join(gone)} does not answer"
    for number in (record.source, record.target):
        placed = seen.generation(number)
        for shard, where in sorted(placed.shards.items()) if placed else ():
            for node in (where.owner, *where.replicas):
                found = seen.replica(number, shard, node)
                if found is None or found.state is not ReplicaState.READY:
                    state = "unseen" if found is None else found.state.name.lower()
                    return f"shard {shard} of generation {number} on {node} is {state}"
                if found.message:
                    return f"shard {shard} of generation {number} on {node}: {found.message}"
    return ""


def look_at_bake(record: MigrationRecord, seen: Observation, nodes: Collection[str], now: float) -> Bake:
    """Return what is known of a wave's time to bake after one more look. What is not healthy begins it anew."""
    before, wave = seen.facts.bake, frozenset(nodes)
    found = complaint(record, seen, nodes)
    if before is None or before.nodes != wave or found or before.complaint:
        return Bake(nodes=wave, looked_at=now, complaint=found)
    gap = now - before.looked_at
    healthy = before.healthy_seconds + (gap if gap <= _LONGEST_GAP_SECONDS else 0.0)
    return replace(
        before,
        looked_at=now,
        healthy_seconds=healthy,
        complaint="",
        done=before.done or healthy >= record.request.bake_seconds,
    )


def waves_of(record: MigrationRecord, seen: Observation) -> tuple[Wave, ...]:
    """Return all waves of a rolling migration: what is done, what bakes, and what would move next as things are."""
    if record.request.strategy != "rolling":
        return ()
    told = [Wave(nodes=nodes, state=WaveState.DONE) for nodes in record.waves]
    if record.state.is_committed or record.state.is_terminal:
        return tuple(told)
    now = current_wave(record, seen)
    if not record.request.in_waves:
        told += [Wave(nodes=(node,), state=WaveState.DONE) for node in moved(record, seen)]
    elif now:
        bake = seen.facts.bake if seen.facts.bake is not None and seen.facts.bake.nodes == frozenset(now) else None
        told.append(
            Wave(
                nodes=now,
                state=WaveState.BAKING,
                # Whole seconds: watchers are told of every change.
                baked_seconds=float(int(bake.healthy_seconds)) if bake else 0.0,
                complaint=bake.complaint if bake else "",
            )
        )
    left = waiting(record, seen)
    while left:
        wave = next_wave(record, seen, left)
        told.append(Wave(nodes=wave, state=WaveState.WAITING))
        left = [node for node in left if node not in wave]
    return tuple(told)
