"""The three ways in which Brainy has written the trees that are in use, and which of them a bucket's version reads.

    flat-one-piece   0.15 - 0.35     a verb is one object
    flat-split       0.36 - 0.48.0   a verb is two objects; nouns have a level (from 0.40)
    entity           0.48.1 - 1.1.1  the same under entities/

Within a dialect every version reads what every other wrote; across two of them verbs, or everything, are invisible.
"""

from __future__ import annotations

from dataclasses import dataclass

from brainy.legacy.keys import ENTITY, ENTITY_KEYS, FLAT, FLAT_KEYS, TreeKeys
from brainy.legacy.survey import Survey

_OLD_NOUNS = "person place thing event concept content group list category"
_NOUNS = (
    "person organization location thing concept event document media file message content collection dataset "
    "product service user task project process state role topic language currency measurement"
)
_OLD_VERBS = (
    "attributedTo controls created earned owns memberOf relatedTo worksWith friendOf reportsTo supervises mentors "
    "follows likes"
)
_VERBS = (
    "relatedTo contains partOf locatedAt references precedes succeeds causes dependsOn requires creates transforms "
    "becomes modifies consumes owns attributedTo createdBy belongsTo memberOf worksWith friendOf follows likes "
    "reportsTo supervises mentors communicates describes defines categorizes measures evaluates uses implements "
    "extends"
)

#: What holds in every dialect; docs/guide/mirror.md explains each.
_ALWAYS = (
    "vectors are written as the float32 they are kept as: digits beyond that are gone",
    "connections are empty and there is no level: Brainy builds its own graph when it loads",
    "a verb of ours says neither when nor by whom it was made: Brainy shows now, and unknown",
    "a Brainy process that runs already finds a mirrored item by its id at once, by search after its next start",
    "Brainy hides a top-level id in a noun's metadata and reads a missing weight as 1",
    "several changes of one item within a batch are written as its last state",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How the versions of one span write."""

    name: str
    keys: TreeKeys
    #: A verb is two objects.
    split_verbs: bool
    noun_types: frozenset[str]
    verb_types: frozenset[str]
    #: What its readers make of whatever is written, in sentences.
    standing_limits: tuple[str, ...]


def _types(*lists: str) -> frozenset[str]:
    return frozenset(" ".join(lists).split())


ONE_PIECE = Dialect(
    name="flat-one-piece",
    keys=FLAT_KEYS,
    split_verbs=False,
    noun_types=_types(_OLD_NOUNS, _NOUNS),
    verb_types=_types(_OLD_VERBS, _VERBS),
    standing_limits=(*_ALWAYS, "at its start a Brainy of this era loads the first 1,000 nouns by key and no more"),
)
SPLIT = Dialect(
    name="flat-split",
    keys=FLAT_KEYS,
    split_verbs=True,
    noun_types=_types(_NOUNS),
    verb_types=_types(_VERBS),
    standing_limits=(*_ALWAYS, "at its start a Brainy of this era loads the first 1,000 nouns by key and no more"),
)
ENTITIES = Dialect(
    name="entity",
    keys=ENTITY_KEYS,
    split_verbs=True,
    noun_types=_types(_NOUNS),
    verb_types=_types(_VERBS),
    standing_limits=(
        *_ALWAYS,
        "Brainy's own metadata index is not written: its filtered searches find a mirrored item once it has indexed it",
        "from 0.49 on a Brainy that is not read-only and lazy never finishes its start with more than 100 nouns",
    ),
)

DIALECTS = {dialect.name: dialect for dialect in (ONE_PIECE, SPLIT, ENTITIES)}


def dialect_of(survey: Survey, *, split_verbs: bool | None) -> Dialect | None:
    """Return the dialect of the newest version that lives on a bucket.

    Args:
        survey: which trees there are.
        split_verbs: whether the flat tree's verbs are two objects, None where nothing tells
            (``brainy.legacy.living.splits_verbs``).

    Returns:
        None where the bucket does not say: it holds no tree that can be mirrored, or a flat one without any trace of
        which half of that era wrote it.
    """
    if ENTITY in survey.trees:
        return ENTITIES
    if FLAT in survey.trees and split_verbs is not None:
        return SPLIT if split_verbs else ONE_PIECE
    return None
