"""Which trees there are, and which wins when several hold the same id.

The one place of precedence: the newer tree wins (entity over flat over typed), because each Brainy wrote only its
own and a newer one cannot have read the older; within the typed tree a folder by type wins over ``default/``, and
of two such folders the object modified later. Within a tree an object under the key of its own id wins over one
that merely says that id inside, and that holds across trees too.
"""

from __future__ import annotations

from collections.abc import Iterable

from brainy.errors import PreconditionError
from brainy.legacy.entity import ENTITY_TREE
from brainy.legacy.flat import FLAT_TREE
from brainy.legacy.keys import ENTITY, FLAT, TYPED
from brainy.legacy.tree import Tree
from brainy.legacy.typed import TYPED_TREES

#: Names, strongest first.
PRECEDENCE = (ENTITY, FLAT, TYPED)


def open_trees(names: Iterable[str]) -> tuple[Tree, ...]:
    """Return the trees of these names, strongest first; the typed tree is one for each of its folders.

    The typed tree shares verbs and metadata with the flat one, which is therefore opened with it.

    Raises:
        PreconditionError: a tree that cannot be read (UNSUPPORTED_FORMAT).
    """
    wanted = set(names)
    if unknown := wanted - set(PRECEDENCE):
        raise PreconditionError(
            "unknown layout",
            reason="UNSUPPORTED_FORMAT",
            remedy="upgrade this process; nothing was changed",
            trees=",".join(sorted(unknown)),
        )
    found: list[Tree] = []
    if ENTITY in wanted:
        found.append(ENTITY_TREE)
    if wanted & {FLAT, TYPED}:
        found.append(FLAT_TREE)
    if TYPED in wanted:
        found += TYPED_TREES
    return tuple(found)
