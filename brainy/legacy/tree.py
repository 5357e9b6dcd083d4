"""What the reader needs to know of a tree."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.legacy.keys import Kind, TreeKeys

BOTH = (Kind.NOUN, Kind.VERB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One of Brainy's layouts, or one folder of it. Its objects combine as ``brainy.legacy.objects`` says."""

    keys: TreeKeys
    #: 0 is the strongest. Of two objects of one id the one in the tree of the lower rank is the item; of equal
    #: ranks the one modified later.
    rank: int
    #: What lies in it.
    kinds: tuple[Kind, ...] = BOTH
    #: Items of these kinds may still be stored although deleted (a buffer was flushed, a second write came late):
    #: the change log is asked about those that look it.
    zombies: frozenset[Kind] = frozenset()
    #: Its writers stored the metadata null for a deleted noun only, looked for the noun in the wrong folder, and
    #: kept no log: a noun with null metadata is taken for deleted.
    null_is_deleted: bool = False

    @property
    def name(self) -> str:
        """Name used in surveys and settings; the folders of the typed tree share one."""
        return self.keys.tree
