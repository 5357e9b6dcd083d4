"""The flat tree, Brainy 0.15 to 0.48.0.

    nouns/<id>.json           vector object; with ``level`` from 0.40
    metadata/<id>.json        any JSON; the literal null after a delete or for {}; absent when none was given
    verbs/<id>.json           the whole verb up to 0.35, the vector part from 0.36
    verb-metadata/<id>.json   the relation, from 0.36; left behind by deleteVerb

Every Brainy of this era reads nouns of the others, but verbs only of its own half; here both halves are read.
A disk-based index wrote nouns a second time without waiting, so a deleted one may have come back: its metadata is
null and its last word in the change log is that delete.
"""

from __future__ import annotations

from brainy.legacy.keys import FLAT_KEYS, Kind
from brainy.legacy.tree import Tree

FLAT_TREE = Tree(keys=FLAT_KEYS, rank=1, zombies=frozenset({Kind.NOUN}))
