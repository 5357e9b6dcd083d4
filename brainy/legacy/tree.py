"""What the reader needs to know of a tree."""

from __future__ import annotations

from dataclasses import dataclass

from brainy.legacy.keys import TreeKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One of Brainy's layouts. Its objects combine as ``brainy.legacy.objects`` says."""

    keys: TreeKeys
    #: Its writers buffered: a flush after a delete stored the item again, so the change log is consulted.
    may_hold_zombies: bool

    @property
    def name(self) -> str:
        """Name used in surveys and settings."""
        return self.keys.tree
