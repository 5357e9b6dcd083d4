"""What a strategy asks for before it begins: further named checks of preflight. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from brainy.bucket.records import Routing
from brainy_coordinator.migration.observation import Check
from brainy_coordinator.migration.record import Request
from brainy_coordinator.pools import eligible

#: What to do about a check that failed, by its name.
STRATEGY_REMEDIES: Mapping[str, str] = {
    "pool_has_nodes": "start nodes with that label (node.pool), or name a pool that has some; brainy status shows them",
    "pool_is_another": "name a pool other than that of the generation in service, or choose another strategy",
    "writers_stopped": "stop every writer, then say so: --writers-stopped",
}


def strategy_checks(request: Request, routing: Routing, labels: Mapping[str, str]) -> tuple[Check, ...]:
    """Return the checks that this request needs besides those of every migration.

    Args:
        request: what is asked for.
        routing: the record in force.
        labels: node -> pool, of the nodes that can be given shards.
    """
    checks: list[Check] = []
    source = routing.generations.get(request.source_generation)
    held = source.pool if source else ""
    pool = request.target.pool
    if pool:
        nodes = sorted(eligible(pool, labels))
        checks.append(
            Check(
                name="pool_has_nodes",
                passed=bool(nodes),
                detail=f"pool {pool}: {', '.join(nodes) or 'no node is alive'}",
                reason="UNAVAILABLE",
            )
        )
    if request.strategy == "blue_green":
        checks.append(
            Check(
                name="pool_is_another",
                passed=pool != held,
                detail=f"from {f'pool {held}' if held else 'nodes without a pool'} to pool {pool}",
            )
        )
    if request.strategy == "coordinated":
        checks.append(
            Check(
                name="writers_stopped",
                passed=request.writers_stopped,
                detail="the caller says so" if request.writers_stopped else "nobody has said so",
            )
        )
    return tuple(checks)
