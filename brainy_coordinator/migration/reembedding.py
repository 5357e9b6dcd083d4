"""Migrations that change the embedding model: what differs in their decisions. Pure.

Vectors of the two sides differ by design, so the digests compared at the switch leave them out (``Projection``): id,
metadata and attributes of every noun, everything of every verb, and on the way forward that each noun with a text has a
vector of the new model. On the way back untouched nouns still have the vectors they always had, whatever made those, so
there it is the items alone.

Both sides count such a digest before writes are stopped, and keep it with every write from then on; so at the switch it
is compared as fast as any other.
"""

from __future__ import annotations

from brainy.bucket.projection import Projection
from brainy_coordinator.migration.actions import PrepareComparison
from brainy_coordinator.migration.cut_over import LAG_LIMIT, Decision
from brainy_coordinator.migration.observation import Observation
from brainy_coordinator.migration.record import MigrationRecord
from brainy_coordinator.migration.state import Trigger

#: Records a following shard may be behind when writes are stopped: each may be a text to embed while they wait.
REEMBEDDED_LAG_LIMIT = 64


def is_reembedded(record: MigrationRecord) -> bool:
    """Whether the two sides were embedded with different models."""
    return record.request.target.embedding is not None


def lag_limit(record: MigrationRecord) -> int:
    """Records a following shard may be behind when the cut-over begins."""
    return REEMBEDDED_LAG_LIMIT if is_reembedded(record) else LAG_LIMIT


def projections(record: MigrationRecord) -> tuple[Projection | None, Projection | None]:
    """Return what is compared of the side that leads, and of the one that follows; None for all of it."""
    embedding = record.request.target.embedding
    if embedding is None:
        return None, None
    if record.leading == record.target:
        return Projection(), Projection()
    return Projection(embedding=embedding, expected=True), Projection(embedding=embedding)


def preparing(record: MigrationRecord, seen: Observation) -> Decision | None:
    """Have both sides count what will be compared, before writes are stopped; None where that is done or not needed."""
    if not is_reembedded(record) or seen.facts.comparable == record.leading:
        return None
    return Decision(actions=(PrepareComparison(record.leading, record.following),))


def without_text(record: MigrationRecord, seen: Observation) -> Decision | None:
    """Give up where more nouns than were accepted got no vector; None while it is not so."""
    if not is_reembedded(record):
        return None
    reembedding = record.request.target.reembedding
    limit = reembedding.without_text_limit if reembedding is not None else 0
    count = sum(owner.unindexed for owner in seen.owners(record.target).values() if owner is not None)
    if count <= limit:
        return None
    return Decision(
        trigger=Trigger.WITHOUT_TEXT_EXCEEDED,
        detail=f"{count} nouns have no text to embed, {limit} accepted; the source goes on serving: give them a text"
        " (metadata.text), or accept more (--without-text)",
    )
