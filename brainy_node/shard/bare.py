"""Items without their vectors."""

from __future__ import annotations

from brainy.bucket.items import Noun, Verb


def bare_noun(noun: Noun) -> Noun:
    """Return a noun without its vector."""
    return Noun(id=noun.id, metadata=noun.metadata, attributes=noun.attributes)


def bare_verb(verb: Verb) -> Verb:
    """Return a verb without its vector."""
    return Verb(
        id=verb.id,
        source_id=verb.source_id,
        target_id=verb.target_id,
        type=verb.type,
        weight=verb.weight,
        metadata=verb.metadata,
        attributes=verb.attributes,
    )
