"""Objects under ``nouns/person/``: persons of the typed tree, or ids of the flat tree that begin with "person/".

Only the id inside tells: ``x`` in ``nouns/person/x.json`` is a person, anything else belongs to the flat tree,
which also reports what cannot be read. The question is put once for each reading, to the first bytes of every
object there; the answer costs eight bytes a person. A typed tree has few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import numpy as np
import numpy.typing as npt

from brainy.legacy.keys import FLAT_KEYS, OLD_NOUNS, OLD_PERSONS, PERSONS, id_in
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.presence import Presence, hashes_of
from brainy.legacy.strays import ids_inside
from brainy.legacy.tree import Tree


class Persons:
    """Which keys below ``nouns/person/`` are persons of the typed tree."""

    def __init__(self) -> None:
        self._keys = Presence()

    async def find(self, fetcher: Fetcher) -> None:
        """Look at them all, unless that was done before."""
        if self._keys.complete:
            return
        found = Presence()
        async with aclosing(fetcher.pages(PERSONS)) as pages:
            async for page in pages:
                keys = [meta.key for meta in page if meta.size and id_in(PERSONS, meta.key)]
                inside = await ids_inside(fetcher, keys)
                persons = [key for key, said in zip(keys, inside, strict=True) if said == id_in(PERSONS, key)]
                found.add(hashes_of(persons))
        found.finish()
        self._keys = found

    def in_tree(self, tree: Tree, keys: Sequence[str]) -> Sequence[bool] | npt.NDArray[np.bool_]:
        """Say of keys below a tree's noun prefix whether they are that tree's. After ``find``, if it matters."""
        prefix = tree.keys.nouns
        if prefix == OLD_NOUNS:
            return [not key.startswith(OLD_PERSONS) for key in keys]
        if prefix == PERSONS:
            return self._keys.contains(hashes_of(keys))
        if prefix == FLAT_KEYS.nouns and self._keys.complete and len(self._keys):
            return ~self._keys.contains(hashes_of(keys))
        return [True] * len(keys)
