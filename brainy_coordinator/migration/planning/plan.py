"""A plan of a migration as a value: what would be done, why, what it rests on. Pure.

A plan is for one request, and a request for one migration: all three ids come from the request's. So a plan can be
executed once only, whoever asks for it and however often.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from brainy.advice.values import Crossing, Risk
from brainy.bucket.records import Record
from brainy_coordinator.migration.record import Request, migration_id_for
from brainy_coordinator.migration.state import State, Trigger

#: A plan older than this is not executed.
PLAN_SECONDS = 24 * 3600.0
#: Share of the items by which their number may change, and how many may come or go in any case.
ITEM_TOLERANCE = 0.1
FEWEST_TOLERATED = 100


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanBasis(_Value):
    """What a plan rests on."""

    source_generation: int
    #: The next free number.
    target_generation: int
    #: SHA-256 of the source's description, in hex.
    spec_digest: str
    #: Trees of Brainy's that the source is read from; () for a generation of ours.
    trees: tuple[str, ...] = ()
    dimensions: int
    nouns: int
    verbs: int
    items_at_least: int
    items_at_most: int
    #: Node -> version of its software ("" where it does not say).
    nodes: dict[str, str]
    quarantined: int
    following: bool = False
    #: Dialect that commits are written back in; "" for not.
    mirror: str = ""


class PlannedStep(_Value):
    """One line of a plan: a stage's name, or an action."""

    action: str
    detail: str


class PlannedTransition(_Value):
    """One event that the history is expected to have."""

    trigger: Trigger
    from_state: State | None
    to_state: State


class PlannedCheck(_Value):
    """A preflight check as it was when the plan was made."""

    name: str
    passed: bool
    detail: str
    #: What to do about it; "" where it passed.
    remedy: str = ""
    #: False for a check that writes to find out, in a dry run.
    tried: bool = True


class Prediction(_Value):
    """Figures of the migration alone: without a backup before it and without serving a tree first."""

    duration_seconds: float
    write_pause_seconds: float
    #: After which it gives up and lets writes go on.
    write_pause_cap_seconds: float
    #: In the bucket, beside what is there, as long as both are kept.
    bucket_bytes: int
    #: Of local disk, replicas included, all nodes together.
    disk_bytes: int
    #: Of the store, by kind: list, get, get_range, put.
    calls: dict[str, int]
    #: US dollars, once.
    request_cost: float
    #: US dollars a month, as long as both are kept.
    storage_cost_per_month: float
    #: Where another model embeds everything anew: texts, and how many a second the nodes managed when asked.
    texts: int = 0
    texts_per_second: float = 0.0

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        return {name: value for name, value in values.items() if value or not name.startswith("texts")}


class Why(_Value):
    """Why this strategy."""

    text: str
    path: tuple[Crossing, ...] = ()
    #: Where the guide's own questions lead, and what is advised of all strategies; "" where nothing is.
    guide: str = ""
    advised: str = ""
    why: tuple[str, ...] = ()
    why_not: tuple[str, ...] = ()


class Confirmation(_Value):
    """Something only a person can know or answer for."""

    name: str
    message: str


class Plan(Record):
    """``migrations/plans/<id>.json``: created if absent, never changed."""

    kind: Literal["migration-plan"] = "migration-plan"
    id: str
    #: Wall seconds of the leader that made it.
    created_at: float
    expires_at: float
    created_by: str = ""
    request: Request
    why: Why
    basis: PlanBasis
    steps: tuple[PlannedStep, ...]
    transitions: tuple[PlannedTransition, ...]
    checks: tuple[PlannedCheck, ...]
    prediction: Prediction
    risks: tuple[Risk, ...] = ()
    confirmations: tuple[Confirmation, ...] = ()
    way_back: str = ""
    runbook: str = ""

    @property
    def migration_id(self) -> str:
        """The migration that executes it."""
        return migration_id_for(self.request.namespace, self.request.request_id)


def plan_id_for(namespace: str, request_id: str) -> str:
    """Return the id of the plan that a request always gets."""
    return "p" + migration_id_for(namespace, request_id)[1:]


def tolerated(items: int, tolerance: float) -> tuple[int, int]:
    """Return the fewest and the most items with which a plan still holds."""
    spare = max(FEWEST_TOLERATED, int(items * (tolerance or ITEM_TOLERANCE)))
    return max(0, items - spare), items + spare


def digest_of_spec(encoded: bytes) -> str:
    """Return what tells one description from another."""
    return hashlib.sha256(encoded).hexdigest()
