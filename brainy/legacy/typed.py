"""The typed tree, Brainy 0.6 to 0.14.

    default/<id>.json          practically every noun: its type was not known yet when it was first written
    place/<id>.json, thing/, event/, concept/, content/, nouns/person/ (up to 0.8: nodes/person/)
                               nouns that were added again, by the type their metadata then had
    edges/<id>.json            verbs in one piece, up to 0.8
    verbs/, metadata/          as in the flat tree, which is therefore always read along

Nothing was moved: a noun that was added again lies in ``default/`` too, and in one folder for each type it ever
had. A folder by type wins over ``default/``; among those the object modified later wins.

``nouns/person/x.json`` is also the key of an id ``person/x`` in the flat tree: the id inside decides
(``brainy.legacy.persons``).

A delete looked for the noun in the wrong folder and stored the metadata null, which nothing else of that age did
(metadata ``{}`` was stored as it is): a noun whose metadata is null is quarantined as a suspected zombie.
"""

from __future__ import annotations

from brainy.legacy.keys import TYPED_DEFAULT, TYPED_FOLDERS, Kind, typed_keys
from brainy.legacy.tree import BOTH, Tree

#: Strongest first. The verbs go with the first folder, so that they are read once.
TYPED_TREES = (
    *(
        Tree(keys=typed_keys(folder), rank=2, kinds=(Kind.NOUN,) if number else BOTH, null_is_deleted=True)
        for number, folder in enumerate(TYPED_FOLDERS)
    ),
    Tree(keys=typed_keys(TYPED_DEFAULT), rank=3, kinds=(Kind.NOUN,), null_is_deleted=True),
)
