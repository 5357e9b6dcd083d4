"""Whether a plan still holds: what it rests on, against what is. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from brainy.clock import iso
from brainy.errors import PreconditionError
from brainy_coordinator.migration.planning.plan import Plan, PlanBasis

_AGAIN = "make another plan: brainy migrate plan"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something a plan rests on, which is not so any more."""

    #: A name: source_generation, target_generation, spec, trees, dimensions, items, nodes, versions, quarantined,
    #: following or mirror.
    name: str
    planned: str
    found: str


def differences(planned: PlanBasis, found: PlanBasis) -> tuple[Difference, ...]:
    """Return what has changed so that a plan does not hold any more, most telling first."""
    changes: list[Difference] = []

    def compare(name: str, before: object, now: object) -> None:
        if before != now:
            changes.append(Difference(name, str(before), str(now)))

    compare("source_generation", planned.source_generation, found.source_generation)
    if changes:
        # Everything else was counted of another generation.
        return tuple(changes)
    compare("target_generation", planned.target_generation, found.target_generation)
    compare("trees", ", ".join(planned.trees) or "none", ", ".join(found.trees) or "none")
    compare("dimensions", planned.dimensions, found.dimensions)
    if planned.dimensions == found.dimensions:
        compare("spec", planned.spec_digest[:12], found.spec_digest[:12])
    items = found.nouns + found.verbs
    if not planned.items_at_least <= items <= planned.items_at_most:
        changes.append(Difference("items", f"{planned.items_at_least} to {planned.items_at_most}", str(items)))
    compare("nodes", ", ".join(sorted(planned.nodes)), ", ".join(sorted(found.nodes)))
    for node in sorted(planned.nodes.keys() & found.nodes.keys()):
        compare("versions", f"{node} {planned.nodes[node]}", f"{node} {found.nodes[node]}")
    compare("quarantined", planned.quarantined, found.quarantined)
    compare("following", planned.following, found.following)
    compare("mirror", planned.mirror or "off", found.mirror or "off")
    return tuple(changes)


def require_holds(plan: Plan, found: PlanBasis, *, now: float, confirmed: Collection[str]) -> None:
    """Refuse a plan that does not hold, or that somebody has to answer for first.

    Args:
        plan: the plan.
        found: what there is now, counted as for a plan.
        now: wall seconds.
        confirmed: names that the operator gave.

    Raises:
        PreconditionError: PLAN_OUTDATED or CONFIRMATION_MISSING; nothing was changed.
    """
    if now >= plan.expires_at:
        raise PreconditionError(
            f"the plan has expired: it held until {iso(plan.expires_at)}",
            reason="PLAN_OUTDATED",
            remedy=_AGAIN,
            plan=plan.id,
            changed="age",
        )
    changes = differences(plan.basis, found)
    if changes:
        said = "; ".join(f"{each.name} was {each.planned}, is {each.found}" for each in changes)
        raise PreconditionError(
            f"the plan does not hold any more: {said}",
            reason="PLAN_OUTDATED",
            remedy=_AGAIN,
            plan=plan.id,
            changed=", ".join(dict.fromkeys(each.name for each in changes)),
        )
    missing = [each for each in plan.confirmations if each.name not in confirmed]
    if missing:
        raise PreconditionError(
            "not confirmed: " + "; ".join(f"{each.name} ({each.message})" for each in missing),
            reason="CONFIRMATION_MISSING",
            remedy="if it is so, add " + " ".join(f"--confirm {each.name}" for each in missing),
            plan=plan.id,
            missing=", ".join(each.name for each in missing),
        )
