"""Which trees there are, and which wins when several hold the same id.

The one place of precedence: the newer tree wins (entity over flat), because each Brainy wrote only its own and
a newer one cannot have read the older. Within a tree an object under the key of its own id wins over one that
merely says that id inside, and that holds across trees too.
"""

from __future__ import annotations

from collections.abc import Iterable

from brainy.errors import PreconditionError
from brainy.legacy.entity import ENTITY_TREE
from brainy.legacy.flat import FLAT_TREE
from brainy.legacy.keys import TYPED
from brainy.legacy.tree import Tree
from brainy.legacy.typed import refuse_typed

#: Strongest first.
PRECEDENCE = (ENTITY_TREE, FLAT_TREE)


def open_trees(names: Iterable[str]) -> tuple[Tree, ...]:
    """Return the trees of these names, strongest first.

    Raises:
        PreconditionError: a tree that cannot be read (UNSUPPORTED_FORMAT).
    """
    wanted = set(names)
    if TYPED in wanted:
        raise refuse_typed()
    found = tuple(tree for tree in PRECEDENCE if tree.name in wanted)
    if unknown := wanted - {tree.name for tree in found}:
        raise PreconditionError(
            "unknown layout",
            reason="UNSUPPORTED_FORMAT",
            remedy="upgrade this process; nothing was changed",
            trees=",".join(sorted(unknown)),
        )
    return found
