"""Objects whose id inside differs from the one in their key: finding them, and deciding what they are.

The id inside is believed, as Brainy does when it loads. If an object under the key of that id says the same id,
that one is the item and the stray is quarantined (``duplicate-id``); among several strays the one of the
strongest tree with the smallest key wins.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence

from brainy.legacy.assembly import Assembly, Entry, Stray
from brainy.legacy.batch import ItemBatch, Quarantined, Reason
from brainy.legacy.deletions import Deletions
from brainy.legacy.keys import Kind, object_key
from brainy.legacy.objects import open_object
from brainy.legacy.pipeline import Fetcher
from brainy.legacy.tree import Tree
from brainy.legacy.values import UnreadableError, parse_json, text_id

# Enough for an id of 1,024 bytes behind the opening brace; Brainy writes the id first.
_HEAD_BYTES = 1536
_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*")')


async def find_strays(fetcher: Fetcher, tree: Tree, kind: Kind, objects: Sequence[tuple[str, str]]) -> list[Stray]:
    """Look at the first bytes of (key, id in the key) pairs; objects that cannot be read are no strays."""
    if not objects:
        return []
    found = []
    heads = await fetcher.heads([key for key, _ in objects], _HEAD_BYTES)
    for (key, id_in_key), head in zip(objects, heads, strict=True):
        inside = None if head is None else await _id_inside(fetcher, key, head)
        if inside is not None and inside != id_in_key:
            found.append(Stray(tree=tree, kind=kind, key=key, id_in_key=id_in_key, id=inside))
    return found


async def _id_inside(fetcher: Fetcher, key: str, head: bytes) -> str | None:
    try:
        if match := _ID_FIRST.match(head):
            return text_id(parse_json(match[1]))
        if len(head) < _HEAD_BYTES:
            return open_object(head)[0]
        whole = await fetcher.get(key)
        return None if whole is None else open_object(whole.body)[0]
    except UnreadableError:
        return None


async def resolve_strays(
    fetcher: Fetcher, trees: Sequence[Tree], strays: Sequence[Stray], deletions: Deletions
) -> AsyncGenerator[ItemBatch]:
    """Yield the strays that are items, and quarantine the others. One batch for each id: they are rare."""
    claims: dict[tuple[Kind, str], list[Stray]] = {}
    for stray in sorted(strays, key=lambda s: (trees.index(s.tree), s.key)):
        claims.setdefault((stray.kind, stray.id), []).append(stray)
    for (kind, item_id), claimants in claims.items():
        if await _held(fetcher, trees, kind, item_id):
            yield await _duplicates(fetcher, claimants)
            continue
        yield await _item(fetcher, claimants[0], deletions)
        if len(claimants) > 1:
            yield await _duplicates(fetcher, claimants[1:])


async def _held(fetcher: Fetcher, trees: Sequence[Tree], kind: Kind, item_id: str) -> bool:
    for tree in trees:
        found = await fetcher.get(object_key(tree.keys.objects(kind), item_id))
        if found is not None:
            try:
                if open_object(found.body)[0] == item_id:
                    return True
            except UnreadableError:
                continue
    return False


async def _duplicates(fetcher: Fetcher, strays: Sequence[Stray]) -> ItemBatch:
    objects = await fetcher.get_all([stray.key for stray in strays])
    return ItemBatch(
        quarantined=[
            Quarantined(found.key, Reason.DUPLICATE_ID, len(found.body)) for found in objects if found is not None
        ],
        objects_read=len(objects),
    )


async def _item(fetcher: Fetcher, stray: Stray, deletions: Deletions) -> ItemBatch:
    prefix = stray.tree.keys.companions(stray.kind)
    keys = [stray.key, object_key(prefix, stray.id), object_key(prefix, stray.id_in_key)]
    found, of_id, of_key = await fetcher.get_all(keys)
    beside = of_id or of_key
    assembly = Assembly(stray.tree, stray.kind)
    assembly.take(Entry(key=stray.key, id=stray.id, companion=None if beside is None else beside.key), [found, beside])
    zombies = await deletions.last_word_is_delete(assembly.suspects)
    return assembly.finish(zombies, objects_read=len(keys))
