"""Objects whose id inside differs from the one in their key: finding them, and deciding what they are.

The id inside is believed, as Brainy does when it loads. If an object under the key of that id says the same id,
that one is the item and the stray is quarantined (``duplicate-id``); among several strays the one of the
strongest tree with the smallest key wins.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from brainy.legacy.assembly import Assembly, Entry, Stray, is_null
from brainy.legacy.batch import ItemBatch, Quarantined, Reason
from brainy.legacy.deletions import Deletions
from brainy.legacy.keys import Kind, object_key
from brainy.legacy.objects import HEAD_BYTES, id_at_first, open_object, says_id
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.tree import Tree
from brainy.legacy.values import UnreadableError


async def find_strays(fetcher: Fetcher, tree: Tree, kind: Kind, objects: Sequence[tuple[str, str]]) -> list[Stray]:
    """Look at the first bytes of (key, id in the key) pairs; objects that cannot be read are no strays."""
    inside = await ids_inside(fetcher, [key for key, _ in objects])
    return [
        Stray(tree=tree, kind=kind, key=key, id_in_key=id_in_key, id=said)
        for (key, id_in_key), said in zip(objects, inside, strict=True)
        if said is not None and said != id_in_key
    ]


async def ids_inside(fetcher: Fetcher, keys: Sequence[str]) -> list[str | None]:
    """Return the ids that objects say they have, by their first bytes; None where that cannot be read."""
    heads = await fetcher.heads(keys, HEAD_BYTES)
    return [
        None if head is None else await _id_inside(fetcher, key, head) for key, head in zip(keys, heads, strict=True)
    ]


async def _id_inside(fetcher: Fetcher, key: str, head: bytes) -> str | None:
    try:
        if said := id_at_first(head):
            return said
        if len(head) < HEAD_BYTES:
            return open_object(head)[0]
        whole = await fetcher.get(key)
        return None if whole is None else open_object(whole.body)[0]
    except UnreadableError:
        return None


async def resolve_strays(
    fetcher: Fetcher,
    trees: Sequence[Tree],
    strays: Sequence[Stray],
    deletions: Deletions,
    *,
    keep_doubles: bool = False,
) -> AsyncGenerator[ItemBatch]:
    """Yield the strays that are items, and quarantine the others. One batch for each id: they are rare."""
    claims: dict[tuple[Kind, str], list[Stray]] = {}
    for stray in sorted(strays, key=lambda s: (trees.index(s.tree), s.key)):
        claims.setdefault((stray.kind, stray.id), []).append(stray)
    for (kind, item_id), claimants in claims.items():
        if await _held(fetcher, trees, kind, item_id):
            yield await _duplicates(fetcher, claimants)
            continue
        yield await _item(fetcher, trees, claimants[0], deletions, keep_doubles=keep_doubles)
        if len(claimants) > 1:
            yield await _duplicates(fetcher, claimants[1:])


async def uncover(
    fetcher: Fetcher,
    trees: Sequence[Tree],
    strays: Sequence[Stray],
    deletions: Deletions,
    *,
    keep_doubles: bool = False,
) -> AsyncGenerator[ItemBatch]:
    """Yield the items that were passed over because a stray lies under their key in a stronger tree."""
    for kind, item_id in dict.fromkeys((stray.kind, stray.id_in_key) for stray in strays):
        places = [tree for tree in trees if kind in tree.kinds]
        objects = await fetcher.get_all([object_key(tree.keys.objects(kind), item_id) for tree in places])
        # Strongest first, the later one among equals: the order in which the reader believes them.
        there = sorted(
            ((tree, found) for tree, found in zip(places, objects, strict=True) if found is not None),
            key=lambda pair: (pair[0].rank, -pair[1].last_modified),
        )
        for number, (tree, found) in enumerate(there):
            said = _said(found.body)
            if said == item_id and number > 0:
                own = Stray(tree=tree, kind=kind, key=found.key, id_in_key=item_id, id=item_id)
                yield await _item(fetcher, trees, own, deletions, keep_doubles=keep_doubles)
            if said in (item_id, None):
                break  # what cannot be read stands for the item, too


def _said(body: bytes) -> str | None:
    try:
        return open_object(body)[0]
    except UnreadableError:
        return None


async def _held(fetcher: Fetcher, trees: Sequence[Tree], kind: Kind, item_id: str) -> bool:
    for tree in trees:
        if kind not in tree.kinds:
            continue
        found = await fetcher.get(object_key(tree.keys.objects(kind), item_id))
        if found is not None and _said(found.body) == item_id:
            return True
    return False


async def _duplicates(fetcher: Fetcher, strays: Sequence[Stray]) -> ItemBatch:
    objects = await fetcher.get_all([stray.key for stray in strays])
    return ItemBatch(
        quarantined=[
            Quarantined(found.key, Reason.DUPLICATE_ID, len(found.body))
            for stray, found in zip(strays, objects, strict=True)
            # What cannot be read beyond its beginning is reported by whoever reads its key.
            if found is not None and says_id(found.body, stray.id)
        ],
        objects_read=len(objects),
    )


async def _item(
    fetcher: Fetcher, trees: Sequence[Tree], stray: Stray, deletions: Deletions, *, keep_doubles: bool
) -> ItemBatch:
    prefix = stray.tree.keys.companions(stray.kind)
    graves = [
        object_key(other.keys.noun_metadata, stray.id)
        for other in trees
        if stray.kind is Kind.NOUN and other.rank < stray.tree.rank and other.keys.noun_metadata != prefix
    ]
    keys = [stray.key, object_key(prefix, stray.id), object_key(prefix, stray.id_in_key), *graves]
    found, of_id, of_key, *buried = await fetcher.get_all(keys)
    if found is None or not says_id(found.body, stray.id) or any(is_null(grave) for grave in buried):
        # Changed meanwhile, or with two ids inside, which whoever reads its key reports; or deleted.
        return ItemBatch(objects_read=len(keys))
    beside = of_id or of_key
    entry = Entry(key=stray.key, id=stray.id, companion=None if beside is None else beside.key)
    assembly = Assembly(stray.tree, stray.kind, keep_doubles=keep_doubles)
    assembly.take(entry, [found, beside] if beside is not None else [found])
    zombies = await deletions.last_word_is_delete(assembly.suspects)
    return assembly.finish(zombies, objects_read=len(keys))
