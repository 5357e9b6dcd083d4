"""The entity tree, Brainy 0.48.1 to 1.1.1.

    entities/nouns/vectors/<id>.json    entities/nouns/metadata/<id>.json
    entities/verbs/vectors/<id>.json    entities/verbs/metadata/<id>.json

Index entries (``__metadata_index__...``) lie among the noun metadata and name no item. Writes were buffered at
times (from 0.54.1): a buffer flushed after a delete leaves a zombie, whose last word in the change log is that
delete. A soft delete (1.x) keeps the vector and replaces the metadata by a marker; such nouns are items.
"""

from __future__ import annotations

from brainy.legacy.keys import ENTITY_KEYS, Kind
from brainy.legacy.tree import Tree

ENTITY_TREE = Tree(keys=ENTITY_KEYS, rank=0, zombies=frozenset({Kind.NOUN, Kind.VERB}))
