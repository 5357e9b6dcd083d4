"""Named checks of preflight for data that come from elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from brainy.bucket.namespace import Namespace
from brainy.bucket.records import Spec
from brainy.errors import BrainyError
from brainy_coordinator.migration.arrival.origins import OriginSeen
from brainy_coordinator.migration.observation import Check
from brainy_coordinator.migration.record import Request

#: What to do about a check that failed, by its name.
ARRIVAL_REMEDIES: Mapping[str, str] = {
    "target_empty": "bring it into a namespace that holds nothing; what is here was not touched",
    "source_elsewhere": "name a namespace beside this one: neither may lie inside the other",
    "source_readable": "check the name, and that coordinator and nodes may read it; nothing was changed",
    "source_serves": "mend it over there (brainy status), and let this coordinator reach its nodes",
    "source_writers_stopped": (
        "stop every Brainy process that writes there, then say so: --writers-stopped; or serve it with a cluster"
        " (brainy up) that follows them, and move that"
    ),
    "source_skipped": "see brainy verify-backup; raise quarantine_limit to go on without these elements",
    "no_way_back": "leave --keep-way-back out: what is left stays as it was at the switch, and can be read",
    "vectors_or_model": (
        "bring the vectors along, or leave them behind and name the model that embeds the texts:"
        " --without-vectors --embed MODEL; see docs/runbooks/sparse-import.md"
    ),
    "texts_stand_still": (
        "back it up (brainy backup) and embed the backup: --from-backup FILE --without-vectors --embed MODEL; or move"
        " it with its vectors, and change the model here afterwards"
    ),
}


def arrival_checks(
    request: Request, own: Spec, seen: OriginSeen | None, problem: BrainyError | None, *, items: int
) -> tuple[Check, ...]:
    """Judge what was found elsewhere.

    Args:
        request: what is asked for; it names a source.
        own: description of the generation that is replaced.
        seen: what was found; None if nothing could be.
        problem: why nothing could be.
        items: nouns and verbs that this namespace holds.
    """
    wish = request.source
    assert wish is not None
    empty = items == 0 and own.source == "empty"
    checks = [
        Check(
            name="target_empty",
            passed=empty,
            detail="nothing is stored here" if empty else _holds(own, items),
            reason="TARGET_NOT_EMPTY",
        ),
        _apart(request.namespace, wish.namespace),
        Check(
            name="source_readable",
            passed=problem is None,
            detail=problem.message if problem is not None else (seen.detail if seen is not None else ""),
            reason="WRONG_PHASE" if problem is None else problem.reason,
        ),
    ]
    if seen is not None and seen.origin.is_followed:
        checks.append(Check(name="source_serves", passed=not seen.problem, detail=seen.problem or "its nodes answer"))
    elif seen is not None and wish.namespace:
        checks.append(
            Check(
                name="source_writers_stopped",
                passed=request.writers_stopped,
                detail="the caller says so" if request.writers_stopped else "no cluster serves it, so nobody follows",
            )
        )
    if seen is not None and wish.backup:
        checks.append(
            Check(
                name="source_skipped",
                passed=seen.skipped <= request.quarantine_limit,
                detail=f"{seen.skipped} elements that cannot be restored, {request.quarantine_limit} accepted",
                reason="QUARANTINE_LIMIT",
            )
        )
    if request.keep_way_back:
        checks.append(Check(name="no_way_back", passed=False, detail="nothing follows back to another place"))
    if wish.without_vectors or request.target.embedding is not None:
        checks.append(_vectors_or_model(request))
    if wish.without_vectors and seen is not None:
        followed = seen.origin.is_followed
        checks.append(
            Check(
                name="texts_stand_still",
                passed=not followed,
                detail="a cluster serves it, and what is written there meanwhile is not embedded on its way here"
                if followed
                else "nobody changes them meanwhile",
            )
        )
    return tuple(checks)


def _vectors_or_model(request: Request) -> Check:
    """Whether the nouns get their vectors from exactly one side: along with them, or of a model that is named."""
    model, without = request.target.embedding, request.source is not None and request.source.without_vectors
    problem = ""
    if model is None:
        problem = "the vectors are left behind, and no model is named that embeds the texts"
    elif not without:
        problem = f"the vectors come along, and {model} would replace every one of them"
    return Check(name="vectors_or_model", passed=not problem, detail=problem or f"the texts are embedded with {model}")


def _holds(own: Spec, items: int) -> str:
    return f"it holds {items:,} items" if own.source == "empty" else "it stands on a tree of Brainy's"


def _apart(own: str, other: str) -> Check:
    """Whether no object of one namespace could be one of the other's."""
    problem = ""
    if other:
        here, there = Namespace.parse(own), Namespace.parse(other)
        if here == there:
            problem = "it is this namespace itself"
        elif _inside(here, there) or _inside(there, here):
            problem = f"{other} and {own} lie one inside the other"
    return Check(name="source_elsewhere", passed=not problem, detail=problem or "another place")


def _inside(inner: Namespace, outer: Namespace) -> bool:
    if inner.scheme != outer.scheme:
        return False
    if inner.scheme == "file":
        return f"{inner.root}/".startswith(f"{outer.root.rstrip('/')}/")
    return inner.root == outer.root and (not outer.prefix or f"{inner.prefix}/".startswith(f"{outer.prefix}/"))
